// Who may do what, and why somebody may read this.
import { useState } from "preact/hooks";
import type { Binding, DecidingRule, Policy, PolicyDecision } from "../answers";
import type { Problem } from "../api";
import { Badge, Empty, Labelled, Loaded, Table, Trouble, When } from "../parts";
import { to } from "../router";
import { useSession } from "../session";
import { count } from "../words";
import { useAsked } from "../asking";
import { More, usePages } from "./pages";

const PERMISSIONS = ["read", "write", "list", "delete", "reveal", "use"];

export function Policies({ id }: { id: string | undefined }) {
  return id ? <OnePolicy id={id} /> : (
    <>
      <h1>Policies</h1>
      <Why />
      <AllPolicies />
    </>
  );
}

/** May somebody do something with a path, and by which rule? */
function Why() {
  const { api } = useSession();
  const [path, setPath] = useState("");
  const [permission, setPermission] = useState("read");
  const [identity, setIdentity] = useState("");
  const [found, setFound] = useState<PolicyDecision | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  const test = async () => {
    setProblem(null);
    try {
      setFound(await api.ask<PolicyDecision>("/v1/policies/test", { path: path.trim(), permission, identity_id: identity.trim() }));
    } catch (why) {
      setFound(null);
      setProblem(why as Problem);
    }
  };
  return (
    <section>
      <h2>Why may they read this?</h2>
      <form class="tools" onSubmit={(event) => { event.preventDefault(); void test(); }}>
        <Labelled label="Path">
          <input type="text" required maxLength={512} value={path} spellcheck={false} autocomplete="off" placeholder="apps/billing/stripe" onInput={(event) => setPath(event.currentTarget.value)} />
        </Labelled>
        <Labelled label="Permission">
          <select value={permission} onChange={(event) => setPermission(event.currentTarget.value)}>
            {PERMISSIONS.map((one) => <option key={one} value={one}>{one}</option>)}
          </select>
        </Labelled>
        <Labelled label="Identity">
          <input type="text" required value={identity} spellcheck={false} autocomplete="off" placeholder="sa:billing or user:ada" onInput={(event) => setIdentity(event.currentTarget.value)} />
        </Labelled>
        <button type="submit" class="main">Test</button>
      </form>
      <Trouble problem={problem} />
      <div aria-live="polite">{found ? <Decision of={found} /> : null}</div>
    </section>
  );
}

function Decision({ of }: { of: PolicyDecision }) {
  return (
    <>
      <p>
        <Badge tone={of.allowed ? "good" : "bad"}>{of.allowed ? "allowed" : "denied"}</Badge>{" "}
        {of.rule
          ? <>by rule {of.rule.rule + 1} of <a href={to(["policies", of.rule.policy_id])}>{of.rule.policy}</a>, <code>{of.rule.path_pattern}</code>, which {of.identity} has through {(of.rule.through ?? []).join(", ")}.</>
          : <>No rule gives {of.identity} {of.permission} on <code>{of.path}</code>; what no rule allows is denied.</>}
      </p>
      {of.near.length ? (
        <Table caption="Rules that came near" rows={of.near} keyOf={(rule) => `${rule.policy_id} ${rule.rule}`} columns={[
          { head: "Came near", cell: (rule) => <a href={to(["policies", rule.policy_id])}>{rule.policy}</a> },
          { head: "Pattern", wide: true, cell: (rule) => <code>{rule.path_pattern}</code> },
          { head: "Permissions", wide: true, cell: (rule) => rule.permissions.join(", ") },
          { head: "Why not", wide: true, cell: (rule) => near(rule) },
        ]} />
      ) : null}
    </>
  );
}

function near(rule: DecidingRule): string {
  switch (rule.reason) {
    case "not_bound": return `it is bound to ${rule.bound_to?.join(", ") || "nobody"}`;
    case "permission_missing": return "it gives other permissions on this path";
    default: return "it gives the permission on other paths";
  }
}

function AllPolicies() {
  const pages = usePages<Policy>("policies", "/v1/policies", "policies", { limit: 100 });
  return (
    <section>
      <h2>All policies</h2>
      <Loaded asked={pages.asked}>
        {() => pages.rows.length === 0 ? (
          <Empty title="No policy is made yet">
            <p>Without one nobody may read anything. Make one by the command line, and bind it:</p>
            <pre>svsync policies create billing-reader --rule 'apps/billing/**=read,list'{"\n"}svsync policies bind billing-reader sa:billing</pre>
          </Empty>
        ) : (
          <>
            <Table caption="Policies by name" rows={pages.rows} keyOf={(row) => row.id} columns={[
              { head: "Policy", wide: true, cell: (row) => <a href={to(["policies", row.id])}>{row.name}</a> },
              { head: "What for", wide: true, cell: (row) => row.description ?? "" },
              { head: "Rules", number: true, cell: (row) => count(row.rules.length) },
              { head: "Bound to", number: true, cell: (row) => count(row.bindings) },
              { head: "Changed", cell: (row) => <When at={row.updated_at} /> },
            ]} />
            <More pages={pages} />
          </>
        )}
      </Loaded>
    </section>
  );
}

function OnePolicy({ id }: { id: string }) {
  const { api } = useSession();
  const at = `/v1/policies/${encodeURIComponent(id)}`;
  const asked = useAsked<Policy>(`policy ${id}`, (signal) => api.get(at, {}, signal));
  const bound = usePages<Binding>(`bindings ${id}`, `${at}/bindings`, "bindings", { limit: 100 });
  return (
    <>
      <p class="crumbs"><a href={to(["policies"])}>Policies</a> / {id}</p>
      <Loaded asked={asked}>
        {(policy) => (
          <>
            <h1>{policy.name}</h1>
            {policy.description ? <p class="soft">{policy.description}</p> : null}
            <section>
              <h2>Rules</h2>
              <Table caption="Rules" rows={policy.rules.map((rule, i) => ({ ...rule, i }))} keyOf={(row) => String(row.i)} columns={[
                { head: "Rule", number: true, cell: (row) => row.i + 1 },
                { head: "Pattern", wide: true, cell: (row) => <code>{row.path_pattern}</code> },
                { head: "Permissions", wide: true, cell: (row) => row.permissions.join(", ") },
              ]} />
            </section>
          </>
        )}
      </Loaded>
      <section>
        <h2>Bound to</h2>
        <Loaded asked={bound.asked}>
          {() => bound.rows.length === 0 ? <p class="soft">Nobody has it: <code>svsync policies bind</code> gives it to somebody.</p> : (
            <>
              <Table caption="Bound to" rows={bound.rows} keyOf={(row) => `${row.identity_type} ${row.identity_id}`} columns={[
                { head: "Who", wide: true, cell: (row) => row.identity_id },
                { head: "Type", cell: (row) => row.identity_type.replaceAll("_", " ") },
              ]} />
              <More pages={bound} />
            </>
          )}
        </Loaded>
      </section>
    </>
  );
}
