// The routes as /openapi.json has them: what each takes and gives, to be tried here or copied for curl.

import { element } from "./element.js";

// The key is kept as the playground keeps it: until the tab is closed. What was typed before this ran stays.
const key = document.getElementById("key");
key.value ||= sessionStorage.getItem("key") ?? "";
key.addEventListener("input", () => sessionStorage.setItem("key", key.value));
document.getElementById("key-form").addEventListener("submit", (event) => event.preventDefault());

const schema = await (await fetch("/openapi.json")).json();
const ids = []; // where the id of a task is asked for

// ---- what a body looks like

function sketch(node) {
  if (node.$ref) return sketch(schema.components.schemas[node.$ref.split("/").at(-1)]);
  if (node.examples) return node.examples[0];
  if (node.const !== undefined) return node.const;
  if (node.anyOf) return node.anyOf.map(sketch).join(" or ");
  if (node.enum) return node.enum.join(" or ");
  if (node.type === "array") return [sketch(node.items)];
  if (node.properties) return Object.fromEntries(Object.entries(node.properties).map(([name, one]) => [name, sketch(one)]));
  if (node.additionalProperties) return { "…": sketch(node.additionalProperties) };
  return node.description ? `${node.type}: ${node.description}` : node.type;
}

const written = (value) => JSON.stringify(value, null, 2);

function json(content) {
  const found = content?.["application/json"]?.schema;
  return found && Object.keys(found).length ? written(sketch(found)) : "";
}

// ---- a call

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(method, address, body) {
  const words = ["curl", "-s"];
  if (method !== (body ? "POST" : "GET")) words.push("-X", method);
  if (key.value) words.push("-H", '"Authorization: Bearer $KEY"');
  return [...words, quoted(location.origin + address), ...(body ? ["-d", quoted(body)] : [])].join(" ");
}

async function called(method, address, body) {
  const headers = { "content-type": "application/json" };
  if (key.value) headers.authorization = `Bearer ${key.value}`;
  let reply;
  try {
    reply = await fetch(address, { method, headers, body: body || undefined });
  } catch {
    return "the service cannot be reached";
  }
  let said = await reply.text();
  try {
    said = JSON.parse(said);
    if (method === "POST" && said.id) {
      for (const field of ids) {
        field.value = said.id;
        field.dispatchEvent(new Event("input", { bubbles: true }));
      }
    }
    said = written(said);
  } catch {
    // text, as of /metrics
  }
  return `${reply.status} ${reply.statusText}\n${said}`;
}

// ---- a route

function field(operation, parameter) {
  const id = `${operation}-${parameter.name}`;
  const input = element("input", { id, autocomplete: "off", value: parameter.schema.default ?? "" });
  input.required = parameter.required;
  if (parameter.name === "id") ids.push(input);
  const told = [parameter.name, parameter.description, parameter.required ? "" : "(may be left out)"].filter(Boolean);
  return { ...parameter, input, shown: [element("label", { for: id }, told.join(" ")), input] };
}

function route(path, method, operation) {
  const name = operation.operationId;
  const fields = (operation.parameters ?? []).map((parameter) => field(name, parameter));
  const content = operation.requestBody?.content;
  const body = element("textarea", { id: `${name}-body`, spellcheck: "false" });
  body.value = json(content);
  body.rows = Math.min(body.value.split("\n").length + 1, 14);
  const files = content?.["multipart/form-data"]?.schema.required;

  const address = () => {
    const filled = path.replace(/{(\w+)}/g, (_, name) => encodeURIComponent(fields.find((one) => one.name === name).input.value));
    const query = new URLSearchParams(fields.filter((one) => one.in === "query" && one.input.value).map((one) => [one.name, one.input.value]));
    return query.size ? `${filled}?${query}` : filled;
  };
  const command = element("pre", { "aria-label": "For curl" });
  const answer = element("pre", { role: "status", "aria-label": "Answer" });
  const told = () => (command.textContent = curl(method, address(), body.value));

  const form = element("form", { oninput: told }, ...fields.flatMap((one) => one.shown));
  if (content) form.append(element("label", { for: body.id }, "Body"), body);
  if (files) form.append(element("p", { class: "quiet" }, `Or a form with files (curl -F): ${files.join(", ")}.`));
  form.append(element("button", { class: "main" }, "Send"), answer);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.textContent = "…";
    answer.textContent = await called(method, address(), body.value);
  });

  const [status, given] = Object.entries(operation.responses)[0];
  const details = element("details", { class: "card", ontoggle: told },
    element("summary", {}, element("b", {}, method), " ", element("code", {}, path), " ", element("span", { class: "quiet" }, operation.description ?? "")),
    form, element("h3", {}, "For curl"), command,
    element("h3", {}, `What it gives: ${status}`), element("pre", {}, json(given.content) || given.description),
  );
  key.addEventListener("input", told);
  return details;
}

const operations = Object.entries(schema.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, one]) => route(path, method.toUpperCase(), one)));
document.getElementById("main").replaceChildren(...operations);
