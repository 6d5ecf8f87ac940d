// What a page asks for, once or again and again, and what it shows meanwhile.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { AWAY, Problem } from "./api";

/** What is shown may be of long ago: nobody has said otherwise. */
const LATE = "late";
const LATE_MS = 10_000;

export interface Asked<T> {
  /** What was answered last; it stays while a later question fails. */
  data: T | null;
  problem: Problem | null;
  /** When `data` was answered, by this machine's clock. */
  at: number;
  again: () => void;
}

/** What is refused is refused again, and each refusal is a row of the audit log. */
export const refused = (why: unknown): boolean =>
  why instanceof Problem && why.status >= 400 && why.status < 500 && why.status !== 429;

/**
 * Ask when `key` changes, and every `every` milliseconds after an answer where that is given.
 * While nobody looks at the tab nothing is asked.
 */
export function useAsked<T>(
  key: string, ask: (signal: AbortSignal) => Promise<T>, every = 0,
): Asked<T> {
  const [state, setState] = useState<{ key: string; data: T | null; problem: Problem | null; at: number }>(
    { key, data: null, problem: null, at: 0 },
  );
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  useEffect(() => {
    const ended = new AbortController();
    let timer = 0;
    let waits = false;
    const once = async () => {
      waits = false;
      let away = false;
      const began = performance.now();
      const late = setTimeout(() => setState((known) => known.key === key && known.data !== null
        ? { ...known, problem: new Problem(0, LATE, `svsync has not answered for ${LATE_MS / 1000} s; this page still waits.`) } : known), LATE_MS);
      ended.signal.addEventListener("abort", () => clearTimeout(late));
      try {
        const data = await latest.current(ended.signal);
        if (ended.signal.aborted) return;
        setState({ key, data, problem: null, at: Date.now() });
      } catch (why) {
        if (ended.signal.aborted) return;
        const met = why instanceof Problem ? why : new Problem(0, "unknown", "This page met a mistake of its own.");
        const problem = met.code === AWAY ? new Problem(0, AWAY, `${met.message.replace(/\.$/, "")}; this page goes on asking.`) : met;
        setState((known) => ({ ...(known.key === key ? known : { key, data: null, at: 0 }), problem }));
        if (refused(problem)) return;
        away = problem.code === AWAY || problem.status === 503;
      } finally {
        clearTimeout(late);
      }
      if (!every && !away) return;
      // Slow answers are asked for less often: looking must not be what keeps the store busy.
      const pause = Math.max(every || 3000, 3 * (performance.now() - began));
      timer = setTimeout(() => (document.hidden ? (waits = true) : void once()), pause);
    };
    const seen = () => {
      if (!document.hidden && waits) void once();
    };
    document.addEventListener("visibilitychange", seen);
    void once();
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [key, every, round]);
  const again = useCallback(() => setRound((n) => n + 1), []);
  const own = state.key === key;
  return { data: own ? state.data : null, problem: own ? state.problem : null, at: state.at, again };
}

/** Between two looks that a mark makes: a look at what names secrets is a row of the audit log. */
const FOLLOW_MS = 10_000;

export interface Followed<T> extends Asked<T> {
  /** It was asked for at another mark. */
  old: boolean;
}

/**
 * Ask when `key` changes, and when `mark` does, which stands for what the answer depends on; while `held`, with `key`
 * alone. An answer that is waited for is let come first: where marks came faster, there would be none.
 */
export function useFollowed<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, mark: string, held = false): Followed<T> {
  const latest = useRef(mark);
  latest.current = mark;
  const last = useRef({ mark, at: 0, waits: false });
  const asked = useAsked<{ mark: string; told: T }>(key, async (signal) => {
    const mine = { mark: latest.current, at: Date.now(), waits: true };
    last.current = mine;
    try {
      return { mark: mine.mark, told: await ask(signal) };
    } finally {
      mine.waits = false;
    }
  });
  useEffect(() => {
    const { mark: known, at, waits } = last.current;
    if (held || waits || known === mark || refused(asked.problem)) return;
    const timer = setTimeout(asked.again, Math.max(at, asked.at) + FOLLOW_MS - Date.now());
    return () => clearTimeout(timer);
  }, [mark, held, asked.data, asked.problem, asked.again]);
  return { ...asked, data: asked.data && asked.data.told, old: asked.data !== null && asked.data.mark !== mark };
}
