// The HTTP API of this server, as docs/api.md describes it; the only way the page learns anything.

// The server sends a sign of life every 15 seconds.
const SILENCE_MS = 40_000;
const MOST_BYTES = Number(document.documentElement.dataset.mostBytes);

/** An id of 128 random bits; crypto.randomUUID is not there without TLS. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The server's word on what went wrong (RFC 9457). */
export class Problem extends Error {
  constructor({ status = 500, code = "error", detail = "" } = {}) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** No answer, or only the beginning of one. */
export class Disconnected extends Error {}

export class Api {
  /** *user* is null where the token names the user. */
  constructor({ token = null, user = null }) {
    this.token = token;
    this.user = user;
  }

  sessions(cursor = null) {
    return this.#json("GET", "sessions", { query: { limit: 30, cursor } });
  }

  messages(session, cursor = null) {
    return this.#json("GET", "messages", { query: { session_id: session, limit: 50, cursor } });
  }

  run(session, run) {
    return this.#json("GET", "run", { query: { session_id: session, run_id: run } });
  }

  cancel(session, run) {
    return this.#json("POST", "run/cancel", { body: { session_id: session, run_id: run } });
  }

  clear(session) {
    return this.#json("DELETE", "messages", { query: { session_id: session } });
  }

  /** Tell whether the server takes a *message* of this length. */
  fits(session, message) {
    const body = { ...this.#question(session, newId(), message), ...this.#named };
    return new Blob([JSON.stringify(body)]).size <= MOST_BYTES;
  }

  /** Yield each event of a run, which begins now unless it is at work or done already. */
  async *chat(session, run, message, signal) {
    const silence = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
    };
    try {
      heard();
      const response = await this.#fetch("POST", "chat", {
        body: this.#question(session, run, message),
        signal: AbortSignal.any([signal, silence.signal]),
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let buffer = "";
      let ending = null;
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        heard();
        const parts = (buffer + value).split("\n\n");
        buffer = parts.pop();
        for (const part of parts) {
          const found = /^event: (\w+)\ndata: (.*)$/.exec(part);
          if (!found) continue;
          const event = [found[1], JSON.parse(found[2])];
          if (event[0] === "done" || event[0] === "error") ending = event;
          else yield event;
        }
      }
      if (ending) yield ending; // when the connection is at rest
    } catch (error) {
      if (error instanceof Problem || signal.aborted) throw error;
      throw new Disconnected(String(error));
    } finally {
      clearTimeout(timer);
    }
  }

  get #named() {
    return this.user === null ? {} : { user_id: this.user };
  }

  #question(session, run, message) {
    return { session_id: session, run_id: run, message, stream: true };
  }

  async #json(method, path, options) {
    try {
      const response = await this.#fetch(method, path, options);
      return response.status === 204 ? null : await response.json();
    } catch (error) {
      if (error instanceof Problem) throw error;
      throw new Disconnected(String(error));
    }
  }

  async #fetch(method, path, { query = {}, body = null, signal = null }) {
    // Relative to the page, which may be mounted anywhere.
    const url = new URL(path, document.baseURI);
    const headers = {};
    if (this.token !== null) headers.authorization = `Bearer ${this.token}`;
    if (body !== null) headers["content-type"] = "application/json";
    for (const [name, value] of Object.entries(body === null ? { ...query, ...this.#named } : {})) {
      if (value !== null) url.searchParams.set(name, value);
    }
    const response = await fetch(url, {
      method,
      headers,
      body: body === null ? null : JSON.stringify({ ...body, ...this.#named }),
      signal,
    });
    if (!response.ok) {
      throw new Problem(await response.json().catch(() => ({ status: response.status })));
    }
    return response;
  }
}
