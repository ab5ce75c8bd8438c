// An agent in Node that asks the Decision Sidecar first. All it has of the sidecar is the .proto. To run it:
//
//   npm install --no-package-lock
//   node ask.js unix:/path/to/sidecar.sock ../../../proto/sidecar/v1/decision.proto
import { createHash } from "node:crypto";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address, proto] = process.argv.slice(2);
const loaded = loadSync(proto, { keepCase: true, longs: String, enums: String, defaults: true });
const { DecisionService } = grpc.loadPackageDefinition(loaded).sidecar.v1;
const sidecar = new DecisionService(address, grpc.credentials.createInsecure());
const inTime = () => ({ deadline: Date.now() + 20_000 }); // no answer in time is no permission
const decide = (question) => promisify(sidecar.Decide.bind(sidecar))(question, inTime());
const report = (outcome) => promisify(sidecar.ReportOutcome.bind(sidecar))(outcome, inTime());

// The request digest of proto/LEDGER.md.
function digest(q) {
  const hash = createHash("sha256").update("sidecar/v1/request\0");
  const u32 = (number) => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(number);
    return bytes;
  };
  const field = (value = "") => {
    const bytes = Buffer.from(value);
    hash.update(u32(bytes.length)).update(bytes);
  };
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
  const answer = await decide(question);
  if (!proves(answer, question)) throw new Error("the receipt is for another question or answer");
  if (answer.effect !== "EFFECT_ALLOW" || answer.obligations.length > 0) throw new Error(`not allowed: ${answer.effect}`);
  const customer = Buffer.from('{"name":"Acme GmbH"}'); // the action itself
  const recorded = await report({
    agent: question.agent,
    decision_id: answer.decision_id,
    status: "OUTCOME_STATUS_EXECUTED",
    response: customer,
  });
  console.log(`ALLOW ${answer.decision_id} at seq ${answer.seq}, outcome at seq ${recorded.seq}`);
} finally {
  sidecar.close();
}
