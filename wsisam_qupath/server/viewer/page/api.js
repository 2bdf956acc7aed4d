// Requests to the server: each carries the token, and a problem becomes an error with its sentence.

const KEY = "wsisam-qupath-token";

export class Problem extends Error {
  constructor(status, detail, name) {
    super(detail);
    this.status = status;
    this.problem = name;
  }
}

// The token, or a code that counts once for it, comes behind the #, which browsers send to nobody; a
// reload finds the token in this tab.
export async function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1));
  const [once, token] = [given.get("once"), given.get("token")];
  given.delete("once");
  given.delete("token");
  history.replaceState(null, "", `${location.pathname}#${given}`);
  if (token) setToken(token);
  if (once) setToken((await exchange(once)).token);
  return sessionStorage.getItem(KEY);
}

async function exchange(code) {
  const headers = { Authorization: `Once ${code}` };
  const response = await fetch("/view/token", { method: "POST", headers });
  if (!response.ok) throw await readProblem(response);
  return response.json();
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function authorization() {
  return { Authorization: `Bearer ${sessionStorage.getItem(KEY)}` };
}

export async function ask(path, { method = "GET", body, accept, signal } = {}) {
  const headers = authorization();
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (accept) headers.Accept = accept;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    throw toProblem(error);
  }
  if (!response.ok) throw await readProblem(response);
  return response;
}

// What a browser says of a connection that failed, in words that help.
function toProblem(error) {
  if (error.name === "AbortError") return error;
  return new Problem(0, "The server does not answer. Start it again, and open its new address.", "gone");
}

async function readProblem(response) {
  if (response.status === 401 && !response.url.endsWith("/view/token")) {
    const detail = "The server does not know this page. Open the address that the terminal shows.";
    return new Problem(401, detail, "unauthorized");
  }
  try {
    const problem = await response.json();
    return new Problem(response.status, problem.detail, problem.type.split(":").pop());
  } catch {
    return new Problem(response.status, `The server answered with status ${response.status}.`, "failed");
  }
}

export async function askJson(path, options) {
  const response = await ask(path, options);
  return response.status === 204 ? null : response.json();
}

// The model may still be on its way: asks again until it is there.
export async function askModel(path, body, { onLoading, signal } = {}) {
  for (;;) {
    try {
      return await askJson(path, { method: "POST", body, signal });
    } catch (error) {
      if (error.problem !== "loading") throw error;
      onLoading?.();
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

// Records of RFC 8142, each when it comes; the last may be a problem.
export async function* askRecords(path, body, signal) {
  const accept = "application/geo+json-seq";
  const response = await ask(path, { method: "POST", body, accept, signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read().catch((error) => { throw toProblem(error); });
    text += value ?? "";
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      const record = JSON.parse(line.replace(/^\x1e/, ""));
      if (record.type !== "Feature") throw new Problem(record.status, record.detail, "failed");
      yield record;
    }
    if (done) return;
  }
}

export const slideQuery = (name) => `slide=${encodeURIComponent(name)}`;
