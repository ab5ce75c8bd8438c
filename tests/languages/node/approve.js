// An approver in Node that reads what waits for its word and says it, signed, from proto/SIGNING.md alone. To run it, in this directory:
//
//   npm install --no-package-lock
//   node approve.js unix:/path/to/sidecar.sock ../../../proto/sidecar/v1/decision.proto key.pem ann approve|reject [COMMENT]
//
// It prints the decision's id and how it stands now. What is signed is computed from the request as it was shown.
import { readFileSync } from "node:fs";
import { createHash, createPrivateKey, createPublicKey, randomBytes, sign } from "node:crypto";
import { promisify } from "node:util";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const [address, proto, keyFile, by, verdict, comment = ""] = process.argv.slice(2);
const loaded = loadSync(proto, { keepCase: true, longs: String, enums: String, defaults: true });
const { ApprovalService, LedgerService } = grpc.loadPackageDefinition(loaded).sidecar.v1;
const approvals = new ApprovalService(address, grpc.credentials.createInsecure());
const ledger = new LedgerService(address, grpc.credentials.createInsecure());
const call = (service, name, message) => promisify(service[name].bind(service))(message, { deadline: Date.now() + 20_000 });
const key = createPrivateKey(readFileSync(keyFile));

const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();

// H(label || field || field ...) with field = u32 length || bytes.
function digest(label, ...fields) {
  const framed = fields.flatMap((field) => {
    const bytes = Buffer.from(field);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return [length, bytes];
  });
  return sha256(`${label}\0`, ...framed);
}

function actionDigest(q) {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(q.delegations.length);
  const asked = [q.agent, q.action, q.resource.type, q.resource.id, q.arguments, q.context, q.purpose, q.executor];
  return digest("sidecar/v1/action", ...asked, count, ...q.delegations.map((given) => given.text));
}

async function signed(message, kind, about) {
  const head = await call(ledger, "Head", {});
  const spki = createPublicKey(key).export({ type: "spki", format: "der" });
  const statement = Buffer.from(
    "sidecar/v1/statement\n" +
      `kind ${kind}\naudience ${head.chain_id.toString("hex")}\nepoch ${head.epoch}\nby ${by}\n` +
      `key ${sha256(spki).toString("hex")}\ndigest ${about.toString("hex")}\n` +
      `time ${BigInt(Date.now()) * 1_000_000n}\nnonce ${randomBytes(16).toString("hex")}\n`,
  );
  const ed25519 = key.asymmetricKeyType === "ed25519";
  const signature = ed25519 ? sign(null, statement, key) : sign("sha256", statement, { key, dsaEncoding: "ieee-p1363" });
  return { ...message, by, signature: { statement, signature } };
}

try {
  const listed = await call(approvals, "ListApprovals", await signed({}, "read", digest("sidecar/v1/read", by, "approvals", "")));
  const [waiting] = listed.pending;
  if (waiting === undefined) throw new Error("nothing waits for this approver");
  const action = actionDigest(waiting.request);
  const args = waiting.request.arguments;
  const done = sha256("sidecar/v1/arguments\0", args.length > 0 ? args : "{}");
  const { bundle_digest, revision } = waiting.policy;
  const about = digest("sidecar/v1/approval", by, waiting.decision_id, verdict, action, done, bundle_digest, revision, comment);
  const word = {
    decision_id: waiting.decision_id,
    verdict: `APPROVAL_VERDICT_${verdict.toUpperCase()}`,
    action_digest: action,
    arguments_digest: done,
    policy_revision: revision,
    bundle_digest,
    comment,
  };
  const taken = await call(approvals, "Approve", await signed(word, "approval", about));
  console.log(`${waiting.decision_id} ${taken.state.what.replace("WHAT_", "").toLowerCase()}`);
} catch (error) {
  console.error(error.details ?? error.message);
  process.exitCode = 1;
} finally {
  approvals.close();
  ledger.close();
}
