#!/usr/bin/env node
// The verifier of verify.html under node, for the protocol of proto/EVIDENCE.md: `verify BUNDLE [--trust T] [--json]`.
// It runs the page's own script, taken from the page, with node's WebCrypto; the file argument may also be a stream.
// Besides: --bundle-trust (the page's button), --disclosure F and --receipt F for a stream, --no-webcrypto (the fallback).
import { open, readFile } from "node:fs/promises";
import { parseArgs } from "node:util";

const PAGE = new URL("../../sidecar/evidence/verify.html", import.meta.url);
const NAMES = "verifyBundle, verifyStream, reportJson, isStream, parseTrust, parseDisclosure, EXITS, VERDICTS, Usage, Malformed";

export async function core(names = NAMES) {
  const [, script] = /<script id="core">([\s\S]*?)<\/script>/.exec(await readFile(PAGE, "utf8"));
  return new Function(`${script}\nreturn { ${names} };`)();
}

class FileSource {
  static async open(path) {
    const source = new FileSource();
    source.file = await open(path);
    source.size = (await source.file.stat()).size;
    return source;
  }

  async read(from, to) {
    const data = new Uint8Array(to - from);
    const { bytesRead } = await this.file.read(data, 0, to - from, from);
    return data.subarray(0, bytesRead);
  }
}

function usage(message) {
  console.error(message);
  process.exit(2);
}

async function main() {
  let args;
  try {
    args = parseArgs({
      allowPositionals: true,
      options: {
        trust: { type: "string" }, json: { type: "boolean" }, "bundle-trust": { type: "boolean" }, disclosure: { type: "string" },
        receipt: { type: "string", multiple: true }, "no-webcrypto": { type: "boolean" },
      },
    });
  } catch (error) {
    usage(error.message);
  }
  const { values, positionals: [command, path, ...rest] } = args;
  if (command !== "verify" || path === undefined || rest.length) usage("usage: verify_html.mjs verify BUNDLE [--trust T] [--json]");
  if (values["no-webcrypto"]) Object.defineProperty(globalThis.crypto, "subtle", { value: undefined });
  const { verifyBundle, verifyStream, reportJson, isStream, parseTrust, parseDisclosure, EXITS, VERDICTS, Usage, Malformed } = await core();
  let report;
  try {
    const source = await FileSource.open(path), bytes = async (name) => new Uint8Array(await readFile(name));
    const trust = values.trust === undefined ? null : parseTrust(await bytes(values.trust));
    if (isStream(await source.read(0, Math.min(8, source.size)))) {
      const disclosure = values.disclosure === undefined ? null : parseDisclosure(await bytes(values.disclosure));
      report = await verifyStream(source, { trust, disclosure, receipts: await Promise.all((values.receipt ?? []).map(bytes)) });
    } else {
      report = await verifyBundle(source, { trust, useBundleTrust: values["bundle-trust"] === true });
    }
  } catch (error) {
    if (error instanceof Usage || error instanceof Malformed || error.code) usage(error.message);
    throw error;
  }
  const verdict = VERDICTS[report.verdict];
  if (values.json) console.log(reportJson(report));
  else console.log([verdict, ...report.findings.map((f) => `  ${VERDICTS[f.verdict]} ${f.chain ?? "bundle"} ${f.segment ?? "-"} ${f.seq ?? "-"}: ${f.reason}`)].join("\n"));
  process.exit(EXITS[verdict]);
}

if (process.argv[1] === new URL(import.meta.url).pathname) await main();
