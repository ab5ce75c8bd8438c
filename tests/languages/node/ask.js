// An agent in Node that asks the Decision Sidecar first. All it has of the sidecar is the .proto. To run it, in this directory:
//
//   npm install --no-package-lock
//   node ask.js unix:/path/to/sidecar.sock ../../../proto/sidecar/v1/decision.proto [key.pem]
//
// With a key (made by `sidecar keys agent`) it signs what it sends, as proto/SIGNING.md says; a sidecar without --dev asks for that.
import { readFileSync } from "node:fs";
import { createHash, createPrivateKey, createPublicKey, randomBytes, sign } from "node:crypto";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address, proto, keyFile] = process.argv.slice(2);
const loaded = loadSync(proto, { keepCase: true, longs: String, enums: String, defaults: true });
const { DecisionService, LedgerService } = grpc.loadPackageDefinition(loaded).sidecar.v1;
const sidecar = new DecisionService(address, grpc.credentials.createInsecure());
const ledger = new LedgerService(address, grpc.credentials.createInsecure());
const inTime = () => ({ deadline: Date.now() + 20_000 }); // no answer in time is no permission
const decide = (question) => promisify(sidecar.Decide.bind(sidecar))(question, inTime());
const report = (outcome) => promisify(sidecar.ReportOutcome.bind(sidecar))(outcome, inTime());

function u32(number) {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(number);
  return bytes;
}

// A digest of proto/SIGNING.md, and how to give it its fields.
function fields(label) {
  const hash = createHash("sha256").update(label + "\0");
  const field = (value = "") => {
    const bytes = Buffer.from(value);
    hash.update(u32(bytes.length)).update(bytes);
  };
  return { hash, field };
}

// The request digest of proto/LEDGER.md.
function digest(q) {
  const { hash, field } = fields("sidecar/v1/request");
  const option = ({ action, resource, arguments: json }) => [action, resource.type, resource.id, json].forEach((value) => field(value));
  const alternatives = q.alternatives ?? [];
  field(q.agent);
  option(q);
  [q.context, q.purpose, q.trace_parent, q.idempotency_key, q.last_receipt].forEach((value) => field(value));
  field(u32(alternatives.length));
  alternatives.forEach(option);
  const delegations = q.delegations ?? [];
  [q.executor, q.approval_of, u32(delegations.length)].forEach((value) => field(value));
  delegations.forEach((given) => [given.text, given.key, given.signature].forEach((value) => field(value)));
  return hash.digest("hex");
}

// The digest of an outcome that says no more than this example does.
function outcomeDigest(o) {
  const { hash, field } = fields("sidecar/v1/outcome");
  const status = o.status.replace("OUTCOME_STATUS_", "").toLowerCase();
  [o.agent, o.decision_id, status, o.response, "", "", "", "", "", ""].forEach((value) => field(value));
  return hash.digest("hex");
}

// The message with a statement over it, where there is a key.
async function signed(message, kind, digestOf) {
  if (!keyFile) return message;
  const head = await promisify(ledger.Head.bind(ledger))({}, inTime());
  const key = createPrivateKey(readFileSync(keyFile));
  const spki = createPublicKey(key).export({ type: "spki", format: "der" });
  const statement = Buffer.from(
    "sidecar/v1/statement\n" +
      `kind ${kind}\naudience ${head.chain_id.toString("hex")}\nepoch ${head.epoch}\nby ${message.agent}\n` +
      `key ${createHash("sha256").update(spki).digest("hex")}\ndigest ${digestOf(message)}\n` +
      `time ${BigInt(Date.now()) * 1_000_000n}\nnonce ${randomBytes(16).toString("hex")}\n`,
  );
  const signature =
    key.asymmetricKeyType === "ed25519" ? sign(null, statement, key) : sign("sha256", statement, { key, dsaEncoding: "ieee-p1363" });
  return { ...message, signature: { statement, signature } };
}

// Whether the receipt names this answer and this question. Its signature is for `sidecar verify --receipt`.
function proves(answer, question) {
  const [text, signatures] = answer.receipt.toString().split("\n\n");
  const effect = answer.effect.replace("EFFECT_", "");
  const named = `\ndecision ${answer.decision_id}\neffect ${effect}\nrequest ${digest(question)}`;
  return signatures !== undefined && text.endsWith(named);
}

const question = {
  agent: "billing-agent",
  action: "crm.read",
  resource: { type: "customer", id: "acme-42" },
  arguments: Buffer.from('{"fields":["name"]}'),
};
try {
  const answer = await decide(await signed(question, "request", digest));
  if (!proves(answer, question)) throw new Error("the receipt is for another question or answer");
  if (answer.effect !== "EFFECT_ALLOW" || answer.obligations.length > 0) throw new Error(`not allowed: ${answer.effect}`);
  const customer = Buffer.from('{"name":"Acme GmbH"}'); // the action itself
  const executed = { agent: question.agent, decision_id: answer.decision_id, status: "OUTCOME_STATUS_EXECUTED", response: customer };
  const recorded = await report(await signed(executed, "outcome", outcomeDigest));
  console.log(`ALLOW ${answer.decision_id} at seq ${answer.seq}, outcome at seq ${recorded.seq}`);
} catch (error) {
  console.error(error.details ?? error.message);
  process.exitCode = 1;
} finally {
  sidecar.close();
  ledger.close();
}
