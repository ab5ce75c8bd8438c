// Answers questions with the page's own script: a JSON array of {ask, …} on standard input, one answer each. Bytes are hex.
import { readFileSync } from "node:fs";
import { core } from "../conformance/verify_html.mjs";

const it = await core(
  "Sha256, compressAll, inScript, judgeStream, Ahead, Desk, sha256, hmac, sha512, inflate, INFLATED, parseObject, ed25519, ed25519Here, p256, p256Here, publicKey, parseStatement, parseDelegation, " +
  "parseGrant, messageDigest, verifyStream, verifyBundle, reportJson, parseTrust, parseDisclosure, parseOpenings, VERDICTS, IN_BROWSER, sprintf, RegoReader, inputsOf, " +
  "inputJson, WasmPolicy, tarFiles, gunzip, rerunDecision, shown, expected, parsePermit, signer, DECISION, OUTCOME, APPROVAL",
);
const { WebAssembly } = globalThis;
delete globalThis.WebAssembly;
const plain = await core("Sha256, compressAll, inScript"); // in a browser that has none
globalThis.WebAssembly = WebAssembly;
const bytes = (text) => new Uint8Array(Buffer.from(text, "hex"));
const text = (data) => Buffer.from(data).toString("hex");
const memory = (data) => ({ size: data.length, read: async (from, to) => data.slice(from, to) });
const file = (path) => new Uint8Array(readFileSync(path));

const first = (report) => {
  const told = JSON.parse(it.reportJson(report)), bad = told.findings.find((f) => it.VERDICTS.indexOf(f.verdict) > 3);
  return { verdict: told.verdict, first_bad: bad ? { chain: bad.chain, segment: bad.segment, seq: bad.seq } : null, reason: bad?.reason ?? "", checked: told.checked, not_checked: told.not_checked };
};

const ANSWERS = {
  wasm: () => [it.compressAll !== it.inScript, plain.compressAll !== plain.inScript],
  sha256: ({ data, pieces, wasm }) => {
    const hash = new (wasm ? it : plain).Sha256();
    let at = 0;
    for (const size of pieces) hash.update(bytes(data).subarray(at, (at += size)));
    return text(hash.update(bytes(data).subarray(at)).digest());
  },
  hmac: ({ key, data }) => text(it.hmac(bytes(key), bytes(data))),
  sha512: ({ data }) => text(it.sha512(bytes(data))),
  inflate: ({ data, limit }) => text(it.inflate(bytes(data), limit)),
  json: ({ data }) => JSON.stringify(it.parseObject(bytes(data))),
  ed25519: async ({ key, signature, message, native }) => {
    const given = [bytes(key), bytes(signature), bytes(message)];
    if (native) return it.ed25519(...given);
    return given[1].length === 64 && it.ed25519Here(...given);
  },
  p256: async ({ spki, signature, message, native }) => {
    const given = [bytes(spki).subarray(26), bytes(signature), bytes(message)];
    if (given[1].length !== 64) return false;
    it.IN_BROWSER.ECDSA = native ? null : false;
    return it.p256(...given);
  },
  key: ({ spki }) => it.publicKey(bytes(spki)).id,
  webcrypto: async () => { await it.ed25519(new Uint8Array(32).fill(9), new Uint8Array(64), new Uint8Array(0)); return it.IN_BROWSER.Ed25519; },
  stream: async ({ path, receipts = [], disclosure = null, openings = null, trust = null }) => first(await it.verifyStream(memory(file(path)), {
    trust: trust && it.parseTrust(Buffer.from(trust)), disclosure: disclosure && it.parseDisclosure(Buffer.from(disclosure)), openings: openings && it.parseOpenings(Buffer.from(openings)), receipts: receipts.map((r) => new Uint8Array(Buffer.from(r))),
  })),
  // What is judged with and without Workers that read ahead (here on the same thread), of a stream in pieces.
  ahead: async ({ path, size, trust = null }) => {
    const data = file(path), held = () => ({ trust: trust && it.parseTrust(Buffer.from(trust)), disclosure: null, openings: null, part: null, receipts: [], logged: [], consistency: [], timestamps: [] });
    async function* pieces() { for (let at = 0; at < data.length; at += size) yield data.slice(at, at + size); }
    const channels = [new MessageChannel(), new MessageChannel()];
    for (const { port2 } of channels) await new it.Desk(() => {}).serve({ file: new Blob([]), port: port2 });
    const ahead = new it.Ahead(channels.map(({ port1 }) => port1)), lend = ahead.lend.bind(ahead);
    let texts = 0;
    ahead.lend = async (...given) => {
      const textOf = await lend(...given);
      return (i) => { const text = textOf(i); texts += text !== null; return text; };
    };
    const judged = async (helped) => JSON.stringify(await it.judgeStream(pieces(), held(), () => {}, helped), (_, v) => (typeof v === "bigint" ? `${v}` : v));
    const told = { alone: await judged(null), helped: await judged(ahead), texts };
    for (const { port1 } of channels) port1.close();
    return { ...told, texts };
  },
  bundle: async ({ path, trust }) => first(await it.verifyBundle(memory(file(path)), { trust: trust && it.parseTrust(file(trust)) })),
  sprintf: ({ values }) => it.sprintf(...new it.RegoReader(values).value()),
  input: ({ value }) => it.inputsOf(it.parseObject(Buffer.from(value))).map((each) => Buffer.from(each).toString()),
  rerun: async ({ bundle, decisions, impure = [] }) => {
    const policy = await it.WasmPolicy.load(it.tarFiles(it.gunzip(file(bundle), 1 << 26).slice()));
    return decisions.map((each) => it.rerunDecision(it.parseObject(Buffer.from(each)), policy, impure));
  },
  grant: ({ data }) => it.parseGrant(bytes(data)).hash,
  statement: ({ value }) => it.parseStatement(value).digest,
  delegation: ({ value }) => it.parseDelegation(value).name,
  shown: ({ value }) => it.shown(value),
};

const answers = [];
for (const { ask, ...given } of JSON.parse(readFileSync(0, "utf8"))) {
  try {
    answers.push({ answer: await ANSWERS[ask](given) });
  } catch (error) {
    answers.push({ refused: `${error.constructor.name}: ${error.message}` });
  }
}
console.log(JSON.stringify(answers));
