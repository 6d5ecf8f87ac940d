// What a page asks for, once or again and again, and what it shows meanwhile.
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { AWAY, Problem } from "./api";

export interface Asked<T> {
  /** What was answered last; it stays while a later question fails. */
  data: T | null;
  problem: Problem | null;
  /** When `data` was answered, by this machine's clock. */
  at: number;
  again: () => void;
}

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
      try {
        const data = await latest.current(ended.signal);
        if (ended.signal.aborted) return;
        setState({ key, data, problem: null, at: Date.now() });
      } catch (why) {
        if (ended.signal.aborted) return;
        const problem = why instanceof Problem ? why : new Problem(0, "unknown", "This page met a mistake of its own.");
        setState((known) => ({ ...(known.key === key ? known : { key, data: null, at: 0 }), problem }));
        // What is refused is refused again, and each refusal is a row of the audit log.
        if (problem.status >= 400 && problem.status < 500 && problem.status !== 429) return;
        away = problem.code === AWAY || problem.status === 503;
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
