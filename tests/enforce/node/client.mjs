// An MCP client of the official TypeScript SDK, as a desktop program is one: it takes its servers from a configuration
// file and starts the one that is named, or asks it where it has a URL. `client.mjs v1|v2|modern CONFIGURATION SERVER CALLS`: CALLS is JSON,
// [[tool, arguments], …]; prints {"tools": [names], "results": [{isError, text, progress}]}.
import { readFileSync } from "node:fs";

const [, , sdk, configuration, server, calls] = process.argv;
const place = sdk === "v1" ? "@modelcontextprotocol/sdk/client/" : "@modelcontextprotocol/client";
const { Client } = await import(sdk === "v1" ? `${place}index.js` : place);
const { StdioClientTransport } = await import(sdk === "v1" ? `${place}stdio.js` : `${place}/stdio`);
const { StreamableHTTPClientTransport } = await import(sdk === "v1" ? `${place}streamableHttp.js` : place);

const { command, args, env, url, headers } = JSON.parse(readFileSync(configuration, "utf8")).mcpServers[server];
const transport = url
  ? new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } })
  : new StdioClientTransport({ command, args, env: { ...process.env, ...env } });
const options = sdk === "modern" ? { versionNegotiation: { mode: { pin: "2026-07-28" } } } : {};
const client = new Client({ name: "desk", version: "1.0.0" }, options);
await client.connect(transport);

const tools = [];
let cursor;
do {
  const page = await client.listTools(cursor ? { cursor } : {});
  tools.push(...page.tools.map((tool) => tool.name));
  cursor = page.nextCursor;
} while (cursor);

const results = [];
for (const [name, given] of JSON.parse(calls)) {
  const progress = [];
  const params = { name, arguments: given };
  const options = { onprogress: (p) => progress.push(p.progress) };
  const result = await (sdk === "v1" ? client.callTool(params, undefined, options) : client.callTool(params, options));
  results.push({ isError: result.isError === true, text: (result.content ?? []).map((part) => part.text ?? "").join(""), progress });
}
console.log(JSON.stringify({ tools, results }));
await client.close();
