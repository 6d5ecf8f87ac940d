// A list that goes on by a cursor.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Problem } from "../api";
import { type Asked, useAgain, useAsked } from "../asking";
import { Act, Trouble } from "../parts";
import { useSession } from "../session";

type Page = { next_cursor: string | null } & Record<string, unknown>;
type Query = Record<string, string | number | undefined>;

export interface Pages<T> {
  asked: Asked<Page>;
  rows: T[];
  cursor: string | null;
  more: () => Promise<void>;
  problem: Problem | null;
  again: () => void;
  /** It has become another list since, and was left as it is for whoever reads further down. */
  old: boolean;
}

/**
 * The first page of `name` at `path`, and more of them when they are asked for. With another
 * `mark` the list is asked for anew, unless more of it than its first page is looked at.
 */
export function usePages<T>(key: string, path: string, name: string, query: Query = {}, mark = ""): Pages<T> {
  const { api } = useSession();
  const asked = useAsked<Page>(key, (signal) => api.get(path, query, signal));
  const [rest, setRest] = useState<{ rows: T[]; cursor: string | null } | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    setRest(null);
    setProblem(null);
  }, [asked.data]);
  const cursor = rest ? rest.cursor : (asked.data?.next_cursor ?? null);
  // More of another list, or of an older look, does not belong here.
  const first = useRef(asked.data);
  first.current = asked.data;
  const [since, setSince] = useState(mark);
  useEffect(() => setSince(mark), [asked.data]);
  useAgain(asked.again, rest ? since : mark);
  const more = async () => {
    const of = asked.data;
    try {
      const page = await api.get<Page>(path, { ...query, cursor });
      if (first.current !== of) return;
      setProblem(null);
      setRest((known) => ({ rows: [...(known?.rows ?? []), ...(page[name] as T[])], cursor: page.next_cursor }));
    } catch (why) {
      setProblem(why as Problem);
    }
  };
  const rows = [...((asked.data?.[name] as T[] | undefined) ?? []), ...(rest?.rows ?? [])];
  return { asked, rows, cursor, more, problem, again: asked.again, old: rest !== null && since !== mark };
}

export function More<T>({ pages }: { pages: Pages<T> }) {
  return (
    <>
      <Trouble problem={pages.problem} />
      {pages.old ? <p class="soft">This list has changed since. <button type="button" class="quiet" onClick={pages.again}>Look again</button></p> : null}
      {pages.cursor ? <Act doing={pages.more}>Show more</Act> : null}
    </>
  );
}
