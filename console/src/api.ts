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
/** How long an answer is waited for: the longest, a plan, may take most of a minute. */
const PATIENCE_MS = 90_000;
/** Before the digits of a number that are kept as they were written. */
const DIGITS = "\u0000";

type Query = Record<string, string | number | boolean | undefined | null>;
interface Asked {
  query?: Query;
  body?: unknown;
  /** In place of `body`: its JSON text, to be sent as it is. */
  text?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Nothing is done by it, whatever its method is. */
  looks?: boolean;
  /** Numbers keep their digits, for `asWritten`: a double would alter some of those of a secret. */
  digits?: boolean;
}

export class Api {
  #token: string;
  #gone: (why: string) => void;
  /** What was sent last without an answer, and under which key. */
  #unanswered: { what: string; key: string } | null = null;

  /** `gone` is told once the token counts no more. */
  constructor(token: string, gone: (why: string) => void) {
    this.#token = token;
    this.#gone = gone;
  }

  get<T>(path: string, query: Query = {}, signal?: AbortSignal): Promise<T> {
    return this.call<T>("GET", path, signal ? { query, signal } : { query });
  }

  post<T>(path: string, body: unknown = {}): Promise<T> {
    return this.call<T>("POST", path, { body });
  }

  /** A POST that does nothing. */
  ask<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T> {
    return this.call<T>("POST", path, { body, looks: true, ...(signal ? { signal } : {}) });
  }

  /** What must not be done twice: sent again after its answer was lost, it has the same key. `body` is JSON text. */
  async once<T>(path: string, body = "{}"): Promise<T> {
    const what = `${path} ${body}`;
    const key = this.#unanswered?.what === what ? this.#unanswered.key : onceKey();
    this.#unanswered = { what, key };
    try {
      const told = await this.call<T>("POST", path, { text: body, headers: { "Idempotency-Key": key } });
      this.#unanswered = null;
      return told;
    } catch (why) {
      const answered = why instanceof Problem && why.status > 0 && why.status < 500 && why.code !== "idempotency_in_progress";
      if (answered) this.#unanswered = null;
      throw why;
    }
  }

  async call<T>(method: string, path: string, asked: Asked = {}): Promise<T> {
    // An id out of the address must not lead to another route.
    if (new URL(path, location.origin).pathname !== path) throw new Problem(404, "no_such_place", "There is no such thing: the address of this page is not right.");
    const headers: Record<string, string> = { Authorization: `Bearer ${this.#token}`, ...asked.headers };
    const init: RequestInit = {
      method,
      headers,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
      referrerPolicy: "no-referrer",
    };
    const sent = asked.text ?? (asked.body === undefined ? undefined : JSON.stringify(asked.body));
    if (sent !== undefined) {
      headers["Content-Type"] = "application/json";
      init.body = sent;
    }
    const looks = asked.looks || method === "GET";
    const ended = new AbortController();
    const end = () => ended.abort();
    const timer = setTimeout(end, PATIENCE_MS);
    asked.signal?.addEventListener("abort", end);
    let answer: Response;
    let text: string;
    try {
      answer = await fetch(path + written(asked.query ?? {}), { ...init, signal: ended.signal });
      text = await answer.text();
    } catch (why) {
      if (asked.signal?.aborted) throw why;
      throw new Problem(0, AWAY, looks ? "svsync does not answer." : LOST);
    } finally {
      clearTimeout(timer);
      asked.signal?.removeEventListener("abort", end);
    }
    const told = parsed(asked.digits ? digitsKept(text) : text);
    if (answer.ok && told === undefined) throw new Problem(0, AWAY, looks ? "Something else answers in place of svsync." : LOST);
    if (answer.ok) return told as T;
    const problem = problemOf(answer.status, told);
    if (answer.status === 401) this.#gone(problem.message);
    throw problem;
  }
}

const LOST = "No answer came, so this may have been done or not: look before you do it again.";

/** Nothing at all is null; undefined is no JSON. */
function parsed(text: string): unknown {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return undefined;
  }
}

const digitsKept = (text: string): string =>
  text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (part) => (part.startsWith('"') || String(Number(part)) === part ? part : `"\\u0000${part}"`));

/** A part of an answer with `digits` as text: a string as it is, all else as JSON. */
export function asWritten(told: unknown): string {
  if (typeof told === "string") return told.startsWith(DIGITS) ? told.slice(1) : told;
  return JSON.stringify(told).replace(/"\\u0000(-?\d[\d.eE+-]*)"/g, "$1");
}

function problemOf(status: number, told: unknown): Problem {
  const error = (told as { error?: Record<string, unknown> } | null)?.error ?? {};
  const text = (name: string, other: string) => (typeof error[name] === "string" ? (error[name] as string) : other);
  const field = text("field", "");
  const message = text("message", `svsync answered ${status}.`);
  return new Problem(status, text("code", "unknown"), field && !message.startsWith(field) ? `${field}: ${message}` : message, field,
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
function onceKey(): string {
  // What makes UUIDs is missing where the page came over plain http.
  const drawn = crypto.getRandomValues(new Uint8Array(16));
  return [...drawn].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
