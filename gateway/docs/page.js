// The API reference: shows openapi.json with Swagger UI, logs in, and shows the events of a stream while they arrive.
"use strict";

const SCHEME = "accessToken"; // the name of the security scheme in openapi.json
const EVENTS = "text/event-stream";
const RENEW_BEFORE_SECONDS = 60;
const SHOWN_CHARACTERS = 65536; // of a stream; a longer text would make each update of the page slow

const element = (id) => document.getElementById(id);
const streams = new Map(); // the AbortController of each running stream, by method and path
let reference;
let renewal;

// ---------------------------------------------------------------- the operations of openapi.json

function* operations() {
  const paths = reference.specSelectors.specJson().get("paths").toJS();
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      yield { path, method, operation };
    }
  }
}

function operationNamed(id) {
  return [...operations()].find(({ operation }) => operation.operationId === id);
}

// Returns the operation of a request if its answer is a stream.
function streamOf(request) {
  const called = new URL(request.url, location.href).pathname;
  return [...operations()].find(
    ({ path, method, operation }) => path === called && method === request.method.toLowerCase() && operation.responses["200"]?.content?.[EVENTS],
  );
}

// ---------------------------------------------------------------- streams

// Swagger UI waits for the end of an answer, and a stream has none. So this shows the answer again after each event.
async function follow({ path, method }, url, request) {
  const name = `${method} ${path}`;
  const stream = new AbortController();
  streams.get(name)?.abort();
  streams.set(name, stream);
  const answer = await fetch(url, { ...request, signal: stream.signal });
  if (!answer.ok || !answer.headers.get("content-type")?.startsWith(EVENTS)) {
    return answer;
  }
  const began = performance.now();
  const headers = Object.fromEntries(answer.headers);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      text = (text + part.value).slice(-SHOWN_CHARACTERS);
      const duration = Math.round(performance.now() - began);
      reference.specActions.setResponse(path, method, { url, headers, text, duration, ok: true, status: answer.status, statusText: answer.statusText });
    }
  } catch (error) {
    if (stream.signal.aborted) {
      return new Promise(() => {}); // the reader has cleared the answer, so nothing may show it again
    }
    throw error;
  }
  return new Response(text, { status: answer.status, headers: answer.headers });
}

function intercept(request) {
  const stream = !request.loadSpec && streamOf(request);
  if (stream) {
    request.userFetch = (url, sent) => follow(stream, url, sent);
  }
  return request;
}

// The button Clear ends the stream.
const endOnClear = () => ({
  statePlugins: {
    spec: {
      wrapActions: {
        clearResponse: (original) => (path, method) => {
          streams.get(`${method} ${path}`)?.abort();
          return original(path, method);
        },
      },
    },
  },
});

// ---------------------------------------------------------------- the session

async function call(id, body) {
  const { path, method } = operationNamed(id);
  const answer = await fetch(path, { method: method.toUpperCase(), headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const content = await answer.json();
  if (!answer.ok) {
    throw new Error(content.message);
  }
  return content;
}

function say(message, isError = false) {
  element("message").textContent = message;
  element("message").classList.toggle("error", isError);
}

function begin(tokens, user) {
  reference.preauthorizeApiKey(SCHEME, tokens.access_token);
  element("login").hidden = true;
  element("session").hidden = false;
  element("user").textContent = user;
  element("logout").onclick = () => end("You are logged out.", tokens.refresh_token);
  const renew = () =>
    call("refreshToken", { refresh_token: tokens.refresh_token }).then(
      (renewed) => begin(renewed, user),
      (error) => end(`The session has ended: ${error.message}`),
    );
  clearTimeout(renewal);
  renewal = setTimeout(renew, Math.max(tokens.expires_in - RENEW_BEFORE_SECONDS, 1) * 1000);
}

function end(message, refreshToken) {
  clearTimeout(renewal);
  reference.authActions.logout([SCHEME]);
  element("login").hidden = false;
  element("session").hidden = true;
  say(message);
  if (refreshToken) {
    call("logout", { refresh_token: refreshToken }).catch((error) => say(error.message, true));
  }
}

async function logIn(event) {
  event.preventDefault();
  const form = event.target;
  const { email, password } = Object.fromEntries(new FormData(form));
  try {
    begin(await call("login", { email, password }), email);
    form.reset();
    say("You are logged in: every request below sends your access token.");
  } catch (error) {
    say(error.message, true);
  }
}

// ---------------------------------------------------------------- the page

function followColorScheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", apply);
  apply();
}

followColorScheme();
reference = SwaggerUIBundle({
  url: "/openapi.json",
  domNode: element("reference"),
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  tryItOutEnabled: true,
  validatorUrl: null, // the default sends the document to a public service
  plugins: [endOnClear],
  requestInterceptor: intercept,
  onComplete: () => {
    element("login").addEventListener("submit", logIn);
    document.documentElement.dataset.ready = "true";
  },
});
