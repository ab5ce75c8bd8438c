// An executor in Node that checks a permit offline, from proto/SIGNING.md ("Permit") alone. To run it:
//
//   node permit.js CHAIN IDENTITY EXECUTOR ACTION TYPE ID ARGUMENTS < permit
//
// CHAIN and IDENTITY (hex) are those of its trust file. It prints the decision's id and exits 0 if it may act now, once: a real executor
// remembers which decisions it has acted on.
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const [chain, identity, executor, action, type, id, args] = process.argv.slice(2);
const NAMES = ["chain", "decision", "seq", "agent", "executor", "target", "arguments", "not_after"];

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

function refuse(why) {
  console.error(`permit refused: ${why}`);
  process.exit(1);
}

// The text of a signed note with exactly one signature, by this key under this name (C2SP signed-note).
function opened(note, name, key) {
  const end = note.lastIndexOf("\n\n");
  const text = note.slice(0, end + 1);
  const line = new RegExp(`^— ${name} ([A-Za-z0-9+/]+={0,2})\\n$`).exec(note.slice(end + 2));
  if (end < 0 || line === null) refuse("it is no note with one signature under the chain's name");
  const said = Buffer.from(line[1], "base64");
  const hash = sha256(name, "\n", Buffer.concat([Buffer.of(1), key])).subarray(0, 4);
  const spki = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), key]); // RFC 8410
  const publicKey = createPublicKey({ key: spki, format: "der", type: "spki" });
  const canonical = said.toString("base64") === line[1] && said.length === 68 && said.subarray(0, 4).equals(hash);
  if (!canonical || !verify(null, Buffer.from(text), publicKey, said.subarray(4))) refuse("the signature is not the sidecar's");
  return text;
}

function lines(text) {
  const [kind, ...rest] = text.split("\n");
  if (kind !== "sidecar/v1/permit" || rest.length !== NAMES.length + 1 || rest.at(-1) !== "") refuse("it is no permit");
  return Object.fromEntries(
    NAMES.map((name, index) => {
      if (!rest[index].startsWith(`${name} `)) refuse(`it has no ${name} in its place`);
      return [name, rest[index].slice(name.length + 1)];
    }),
  );
}

function targetDigest(...fields) {
  const framed = fields.flatMap((field) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(Buffer.byteLength(field));
    return [length, field];
  });
  return sha256("sidecar/v1/target\0", ...framed).toString("hex");
}

const permit = lines(opened(readFileSync(0, "utf8"), `sidecar.v1/${chain}/identity`, Buffer.from(identity, "hex")));
if (permit.chain !== chain) refuse("it is of another chain");
if (permit.executor !== executor) refuse("it is for another executor");
if (permit.target !== targetDigest(action, type, id)) refuse("it is for another action or resource");
if (permit.arguments !== sha256("sidecar/v1/arguments\0", args || "{}").toString("hex")) refuse("it is for other arguments");
if (!/^[1-9][0-9]*$/.test(permit.not_after) || BigInt(Date.now()) * 1_000_000n >= BigInt(permit.not_after)) refuse("it has expired");
console.log(permit.decision);
