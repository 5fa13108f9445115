// The page over /openapi.json. Everything that is shown comes from there and enters the page as text only (textContent).

/** @typedef {Record<string, any>} Json */

/**
 * An element with text or children.
 * @param {string} tag
 * @param {string | Node | (string | Node)[]} [content]
 * @param {Record<string, string>} [attributes]
 * @returns {HTMLElement}
 */
function make(tag, content = [], attributes = {}) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  for (const part of Array.isArray(content) ? content : [content]) {
    element.append(typeof part === "string" ? document.createTextNode(part) : part);
  }
  return element;
}

/**
 * @param {string[]} heads
 * @param {(string | Node)[][]} rows
 */
function table(heads, rows) {
  const head = make("thead", make("tr", heads.map((text) => make("th", text, { scope: "col" }))));
  const body = make("tbody", rows.map((row) => make("tr", row.map((cell) => make("td", cell)))));
  return make("div", make("table", [head, body]), { class: "wide", tabindex: "0" });
}

/** @param {string} path */
const anchor = (path) => path.replace(/\W+/g, "_").replace(/^_/, "") || "root";

/** What `$ref` points at. @param {Json} root @param {Json} value @returns {Json} */
function resolve(root, value) {
  if (!value || typeof value.$ref !== "string") return value;
  return value.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], root);
}

/** @param {Json} schema @returns {string} */
function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ word) => JSON.stringify(word)).join(" | ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" | ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(typeOf).join(", ")}]`;
  if (schema.type === "array") return `${schema.items ? typeOf(schema.items) : "any"}[]`;
  if (schema.type === "object" && schema.additionalProperties) return `{key: ${typeOf(schema.additionalProperties)}}`;
  return schema.type ?? "any";
}

/** @param {Json} schema */
function rangeOf(schema) {
  if (schema["x-clamped"]) return `${schema["x-clamped"].join(" to ")}, clamped`;
  const low = schema.minimum !== undefined ? `from ${schema.minimum}` : schema.exclusiveMinimum !== undefined ? `above ${schema.exclusiveMinimum}` : "";
  const high = schema.maximum !== undefined ? `to ${schema.maximum}` : "";
  return `${low} ${high}`.trim() || typeOf(schema);
}

/** @param {Json} root @param {Json[]} parameters */
function parameterTable(root, parameters) {
  const found = parameters.map((one) => resolve(root, one)).filter((one) => one.in === "query");
  if (!found.length) return make("p", "No parameters.");
  return table(["Parameter", "Type", "Default", "Range", "Outside", "Meaning"], found.map((one) => [
    make("code", one.required ? `${one.name} (required)` : one.name),
    one.schema.enum ? "word" : one.schema.type,
    one.schema.default === undefined ? "absent" : String(one.schema.default),
    one.schema.items ? `list of ${typeOf(one.schema.items)}` : rangeOf(one.schema),
    one.schema["x-clamped"] ? "clamped, echoed" : "400",
    one.description.replace(/ Outside its range: .*/, ""),
  ]));
}

/** @param {Json} root @param {string} name */
function keyTable(root, name) {
  const schema = root.components.schemas[name];
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([key, value]) => [
    make("code", required.has(key) ? key : `${key}?`), typeOf(value),
  ]);
  return make("details", [make("summary", `Keys of ${name}`), table(["Key", "Type"], rows)]);
}

/** Names of the schemas that a schema needs, each once, in order. @param {Json} root @param {string} name @param {string[]} found */
function schemaNames(root, name, found = []) {
  if (found.includes(name)) return found;
  found.push(name);
  JSON.stringify(root.components.schemas[name], (key, value) => {
    if (key === "$ref" && typeof value === "string") schemaNames(root, value.slice(value.lastIndexOf("/") + 1), found);
    return value;
  });
  return found;
}

/** @param {Json} root @param {Json} operation */
function responses(root, operation) {
  const rows = [];
  for (const [status, given] of Object.entries(operation.responses)) {
    const answer = resolve(root, given);
    rows.push([status, answer.description, Object.keys(answer.headers ?? {}).filter((name) => !name.includes("RateLimit")).join(", ")]);
  }
  return make("details", [make("summary", "Answers and their headers"), table(["Status", "What", "Headers"], rows)]);
}

/** @param {Json} root @param {Json} operation */
function examples(root, operation) {
  const found = [];
  for (const [status, given] of Object.entries(operation.responses)) {
    const media = resolve(root, given).content?.["application/json"];
    for (const one of Object.values(media?.examples ?? {})) {
      const text = JSON.stringify(resolve(root, one).value, null, 1);
      found.push(make("details", [make("summary", `Example, ${status}`), make("pre", text, { tabindex: "0" })]));
    }
  }
  return found;
}

/** @param {Json} root @param {string} path @param {string[]} aliases */
function endpoint(root, path, aliases) {
  const item = root.paths[path];
  const get = item.get;
  const parts = [
    make("h2", [make("span", "GET", { class: "method" }), " ", make("code", path)]),
    make("p", get.summary),
  ];
  if (aliases.length) parts.push(make("p", ["The same as ", make("code", aliases.join(", "))]));
  if (get.description !== get.summary) parts.push(make("p", get.description));
  parts.push(make("p", `Costs ${get["x-cost"]} of the rate limit.${get.security ? " Needs no key." : ""}`));
  parts.push(parameterTable(root, item.parameters ?? []));
  for (const [name, why] of Object.entries(get["x-refused"] ?? {})) parts.push(make("p", [make("code", name), ` is refused: ${why}`]));
  const content = resolve(root, get.responses["200"] ?? {}).content;
  const layout = content?.["application/octet-stream"]?.["x-layout"];
  if (layout) parts.push(make("details", [make("summary", "Binary form"), make("p", layout)]));
  const body = content?.["application/json"]?.schema?.$ref?.split("/").at(-1);
  if (body) parts.push(...schemaNames(root, body).map((name) => keyTable(root, name)));
  parts.push(responses(root, get), ...examples(root, get));
  return make("section", parts, { id: anchor(path) });
}

/** @param {Json} root */
function errors(root) {
  const rows = root["x-errors"].map((/** @type {Json} */ one) => [String(one.status), make("code", one.code), one.when]);
  const text = "Always {\"error\": code, \"detail\": text}. The text names the parameter and its range, never what was sent.";
  return make("section", [make("h2", "Errors"), make("p", text), table(["Status", "Code", "When"], rows)], { id: "errors" });
}

/** @param {Json} root */
function push(root) {
  const given = root["x-push"];
  const name = (/** @type {Json} */ one) => one.$ref.split("/").at(-1);
  const all = [...given.messages, ...given.commands, ...Object.values(given.channels).flatMap((one) => one.data)].map(name);
  /** @type {string[]} */
  const names = all.reduce((found, one) => schemaNames(root, one, found), /** @type {string[]} */ ([]));
  return make("section", [
    make("h2", "Push"),
    table(["Transport", "How"], Object.entries(given.transports).map(([path, text]) => [make("code", path), text])),
    make("h3", "Channels"),
    table(["Channel", "Snapshot", "Then", "Kind of data", "data"], Object.entries(given.channels).map(([channel, one]) => [
      make("code", channel), one.snapshot, one.then, one.kind, one.data.map(name).join(", "),
    ])),
    make("h3", "Rules"), make("ul", given.rules.map((/** @type {string} */ text) => make("li", text))),
    make("h3", "Binary column message, little endian"),
    table(["Offset", "Type", "Field"], given.binary.map((/** @type {Json} */ one) => [String(one.offset), one.type, one.field])),
    make("h3", "Limits"),
    table(["Limit", "Value", "Beyond"], given.limits.map((/** @type {Json} */ one) => [one.limit, one.value, one.beyond])),
    make("h3", "Messages"), ...names.map((one) => keyTable(root, one)),
  ], { id: "push" });
}

/** @param {Json} root */
function show(root) {
  const main = document.querySelector("main");
  const contents = document.querySelector("#contents");
  const summary = document.querySelector("#summary");
  if (!main || !contents || !summary) return;
  /** @type {Map<string, string[]>} */
  const paths = new Map();
  for (const [path, item] of Object.entries(root.paths)) {
    const of = item.get["x-alias-of"];
    if (of) paths.get(of)?.push(path);
    else paths.set(path, []);
  }
  summary.textContent = `${root.info.summary}. Contract ${root.info.version}, build ${root.info["x-build"]}.`;
  main.replaceChildren(
    make("p", root.info.description),
    ...[...paths].map(([path, aliases]) => endpoint(root, path, aliases)),
    errors(root), push(root),
  );
  const links = [...[...paths.keys()].map((path) => [anchor(path), path]), ["errors", "Errors"], ["push", "Push"]];
  contents.replaceChildren(...links.map(([id, text]) => make("li", make("a", text, { href: `#${id}` }))));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

async function start() {
  const state = document.querySelector("#state");
  try {
    const answer = await fetch("/openapi.json");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    show(await answer.json());
  } catch (error) {
    if (state) {
      state.textContent = `The description cannot be shown: ${error instanceof Error ? error.message : "unknown"}`;
      state.className = "error";
    }
  }
}

start();
