// What this browser keeps. Several agents may be served by one host, each at its own path.

const place = (name) => `agno-sql ${location.pathname} ${name}`;

/** The name of who was here last; only without authentication. */
export const lastUser = {
  get: () => localStorage.getItem(place("user")),
  put: (user) => localStorage.setItem(place("user"), user),
};

/** The token and, for an API key, the user; gone with the tab. */
export const credentials = {
  get: () => JSON.parse(sessionStorage.getItem(place("credentials"))),
  put: (given) => sessionStorage.setItem(place("credentials"), JSON.stringify(given)),
  drop: () => sessionStorage.removeItem(place("credentials")),
};

/** What a user of this tab has asked and does not know the end of, one in each conversation. */
export class Outbox {
  constructor(user) {
    this.place = place(`outbox of ${user}`);
  }

  get(session) {
    return this.#all()[session] ?? null;
  }

  put(session, { run, message }) {
    this.#keep({ ...this.#all(), [session]: { run, message } });
  }

  drop(session) {
    const { [session]: _, ...others } = this.#all();
    this.#keep(others);
  }

  #all() {
    return JSON.parse(sessionStorage.getItem(this.place)) ?? {};
  }

  #keep(all) {
    sessionStorage.setItem(this.place, JSON.stringify(all));
  }
}
