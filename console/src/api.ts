// Every call to svsync: the public API, with the token of who looks, and nothing else.
import type { Conflict } from "./answers";

/** What went wrong, as one sentence for the person. */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly field: string = "",
    readonly conflict: Conflict | null = null,
  ) {
    super(message);
  }
}

/** No answer at all: the daemon restarts, or the network is away. */
export const AWAY = "away";

type Query = Record<string, string | number | boolean | undefined | null>;
interface Asked {
  query?: Query;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

export class Api {
  #token: string;
  #gone: (why: string) => void;

  /** `gone` is told once the token counts no more. */
  constructor(token: string, gone: (why: string) => void) {
    this.#token = token;
    this.#gone = gone;
  }

  get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
    return this.call<T>("GET", path, signal ? { query, signal } : { query });
  }

  post<T>(path: string, body: unknown = {}, headers: Record<string, string> = {}): Promise<T> {
    return this.call<T>("POST", path, { body, headers });
  }

  async call<T>(method: string, path: string, asked: Asked = {}): Promise<T> {
    const headers: Record<string, string> = { Authorization: `Bearer ${this.#token}`, ...asked.headers };
    const init: RequestInit = {
      method,
      headers,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
    };
    if (asked.signal) init.signal = asked.signal;
    if (asked.body !== undefined) {
      headers["Content-Type"] = "application/json";
      init.body = JSON.stringify(asked.body);
    }
    let answer: Response;
    let told: unknown = null;
    try {
      answer = await fetch(path + written(asked.query ?? {}), init);
      const text = await answer.text();
      if (text) told = JSON.parse(text);
    } catch (why) {
      if (asked.signal?.aborted) throw why;
      throw new Problem(0, AWAY, "svsync does not answer; this page goes on asking.");
    }
    if (answer.ok) return told as T;
    const problem = problemOf(answer.status, told);
    if (answer.status === 401) this.#gone(problem.message);
    throw problem;
  }
}

function problemOf(status: number, told: unknown): Problem {
  const error = (told as { error?: Record<string, unknown> } | null)?.error ?? {};
  const text = (name: string, other: string) => (typeof error[name] === "string" ? (error[name] as string) : other);
  const field = text("field", "");
  const message = text("message", `svsync answered ${status}.`);
  return new Problem(status, text("code", "unknown"), field ? `${field}: ${message}` : message, field,
    (error.conflict as Conflict | undefined) ?? null);
}

function written(query: Query): string {
  const given = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") given.set(name, String(value));
  }
  const text = given.toString();
  return text && `?${text}`;
}

/** A path of a secret as part of an address: its slashes stay. */
export const inPath = (path: string): string => path.split("/").map(encodeURIComponent).join("/");

/** For a request that must not be made twice, however often it is sent. */
export function onceKey(): string {
  // What makes UUIDs is missing where the page came over plain http.
  const drawn = crypto.getRandomValues(new Uint8Array(16));
  return [...drawn].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
