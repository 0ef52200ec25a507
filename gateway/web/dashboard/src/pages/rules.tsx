/** How the store wants its events treated: what is kept, for how long, and what they must be. */

import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";

import { ApiError, get, post, remove, type Schemas } from "../api";
import { setExporter } from "../csv";
import { useData, type Loaded } from "../data";
import { ago, count, spoken } from "../format";
import type { PageProps } from "../pages";
import { may } from "../session";
import { Card, Dialog, Empty, Failure, Segments, Show, Table, rowsOf, toast, type Column } from "../ui";

type Settings = Schemas["ingest.StoreSettings"];
type Rule = Schemas["ingest.RetentionRule"];
type Preview = Schemas["ingest.PreviewRetentionResponse"];
type Plan = Schemas["ingest.TrackingPlan"];
type Mode = Schemas["ingest.PlanMode"];

const ADDRESSES = [
  ["ADDRESS_STORAGE_OFF", "Nothing"],
  ["ADDRESS_STORAGE_TRUNCATED", "The network"],
  ["ADDRESS_STORAGE_FULL", "All of it"],
] as const;
const MODES = [
  ["PLAN_MODE_OFF", "Off"],
  ["PLAN_MODE_OBSERVE", "Observe"],
  ["PLAN_MODE_BLOCK", "Block"],
] as const;
const EXAMPLE = `{
  "type": "object",
  "required": ["order_id", "total"],
  "properties": {"order_id": {"type": "string"}, "total": {"type": "number"}}
}`;

const days = (rule: { days: number }): string =>
  rule.days ? `${count(rule.days)} days` : "for ever";

/** Does what a button is for, and shows why it couldn't be done. */
function useAttempt(): [(work: () => Promise<void>) => Promise<void>, boolean, ComponentChildren] {
  const [busy, setBusy] = useState(false);
  const [failure, setFailure] = useState<ApiError>();
  const attempt = async (work: () => Promise<void>): Promise<void> => {
    setBusy(true);
    setFailure(undefined);
    try {
      await work();
    } catch (error) {
      setFailure(error as ApiError);
    }
    setBusy(false);
  };
  return [attempt, busy, failure && <Failure error={failure} />];
}

export function Rules({ view, session }: PageProps): JSX.Element {
  const path = { store_uid: view.store };
  const settings = useData(`settings ${view.store}`, (signal) =>
    get("/v1/stores/{store_uid}/event-settings", path, undefined, signal),
  );
  const mayChange = may(session, "settings:write");
  return (
    <div class="stack">
      <Card title="Events">
        <Show of={settings}>
          {(data) =>
            data.settings && (
              <SettingsForm
                key={data.settings.update_time ?? ""}
                store={view.store}
                settings={data.settings}
                mayChange={mayChange}
                onSaved={settings.reload}
              />
            )
          }
        </Show>
      </Card>
      <Retention store={view.store} mayChange={mayChange} />
      <Plans store={view.store} mayChange={mayChange} />
    </div>
  );
}

function SettingsForm(props: {
  store: string;
  settings: Settings;
  mayChange: boolean;
  onSaved: () => void;
}): JSX.Element {
  const [form, setForm] = useState(props.settings);
  const [attempt, busy, failure] = useAttempt();
  const change = (changes: Partial<Settings>): void => setForm({ ...form, ...changes });
  const save = (): Promise<void> =>
    attempt(async () => {
      await post("/v1/stores/{store_uid}/event-settings", { store_uid: props.store }, {
        address_storage: form.address_storage,
        catalogue_mode: form.catalogue_mode,
        rejected_days: form.rejected_days,
        ...(form.daily_quota ? { daily_quota: form.daily_quota } : {}),
      });
      toast("Saved. Every replica goes by it within 2 seconds.");
      props.onSaved();
    });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <fieldset class="stack" disabled={!props.mayChange}>
        <legend class="unseen">How events are treated</legend>
        <div class="row">
          <div class="field">
            <span class="soft small">Stored of a sender's address</span>
            <Segments
              label="Stored of a sender's address"
              options={ADDRESSES}
              value={form.address_storage as (typeof ADDRESSES)[number][0]}
              onChange={(address_storage) => change({ address_storage })}
            />
          </div>
          <div class="field">
            <span class="soft small">Held against Segment's e-commerce spec</span>
            <Segments
              label="Held against Segment's e-commerce spec"
              options={MODES}
              value={form.catalogue_mode as (typeof MODES)[number][0]}
              onChange={(catalogue_mode) => change({ catalogue_mode })}
            />
          </div>
        </div>
        <div class="row">
          <label class="field">
            Events a day, at most
            <input
              type="number"
              min={0}
              placeholder="no limit"
              value={form.daily_quota ?? ""}
              onInput={(event) => change({ daily_quota: event.currentTarget.value })}
            />
          </label>
          <label class="field">
            Days that rejected events are kept
            <input
              type="number"
              min={1}
              max={400}
              value={form.rejected_days || 30}
              onInput={(event) => change({ rejected_days: Number(event.currentTarget.value) })}
            />
          </label>
          {props.mayChange && (
            <button type="submit" class="primary" disabled={busy}>
              {busy ? "Saving…" : "Save"}
            </button>
          )}
        </div>
        {failure}
      </fieldset>
    </form>
  );
}

function Retention({ store, mayChange }: { store: string; mayChange: boolean }): JSX.Element {
  const path = { store_uid: store };
  const loaded = useData(`retention ${store}`, (signal) =>
    get("/v1/stores/{store_uid}/retention-rules", path, undefined, signal),
  );
  const [name, setName] = useState("");
  const [length, setLength] = useState("");
  const [preview, setPreview] = useState<Preview>();
  const [attempt, busy, failure] = useAttempt();
  const rule = { event_name: name.trim(), days: Number(length || 0) };
  const look = (): Promise<void> =>
    attempt(async () => {
      setPreview(await post("/v1/stores/{store_uid}/retention-rules:preview", path, { rule }));
    });
  const put = (): Promise<void> =>
    attempt(async () => {
      await post("/v1/stores/{store_uid}/retention-rules", path, rule);
      toast(`${rule.event_name || "All other events"}: ${days(rule)}.`);
      setPreview(undefined);
      loaded.reload();
    });
  const columns: Column<Rule>[] = [
    { name: "Events", cell: (row) => row.event_name || "all others", csv: (row) => row.event_name },
    { name: "Kept", cell: days, csv: (row) => row.days },
    { name: "Since", cell: (row) => ago(row.update_time), hideNarrow: true },
  ];
  useEffect(() => {
    setExporter(() => ({ name: "retention", rows: rowsOf(columns, loaded.data?.rules ?? []) }));
    return () => setExporter(null);
  });
  const due = (preview?.due ?? []).reduce((sum, each) => sum + Number(each.due_count), 0);
  return (
    <Card title="For how long events are kept">
      <div class="stack">
        <Show of={loaded}>
          {(data) =>
            data.rules.length ? (
              <Table label="Retention" columns={columns} rows={data.rules} keyOf={(row) => row.event_name} />
            ) : (
              <p>All events are kept for ever. Figures in reports stay when events go.</p>
            )
          }
        </Show>
        {mayChange && (
          <form
            class="row"
            onSubmit={(event) => {
              event.preventDefault();
              void look();
            }}
          >
            <label class="field">
              Events named
              <input
                value={name}
                maxLength={255}
                placeholder="all others"
                onInput={(event) => {
                  setName(event.currentTarget.value);
                  setPreview(undefined);
                }}
              />
            </label>
            <label class="field">
              Days
              <input
                type="number"
                min={2}
                max={3650}
                placeholder="for ever"
                value={length}
                onInput={(event) => {
                  setLength(event.currentTarget.value);
                  setPreview(undefined);
                }}
              />
            </label>
            <button type="submit" disabled={busy}>
              See what would go
            </button>
          </form>
        )}
        {preview && (
          <div class={due ? "note warn" : "note"} role="status">
            <p>
              {due
                ? `${count(due)} events would go, for good${preview.complete ? "" : ", and perhaps more"}.`
                : "Nothing would go now."}
            </p>
            <ul>
              {preview.due.map((each) => (
                <li key={each.event_name}>
                  {count(each.due_count)} × {each.event_name || "all others"}
                </li>
              ))}
            </ul>
            <button type="button" class={due ? "danger" : "primary"} disabled={busy} onClick={() => void put()}>
              Keep them {days(rule)}
            </button>
          </div>
        )}
        {failure}
      </div>
    </Card>
  );
}

function Plans({ store, mayChange }: { store: string; mayChange: boolean }): JSX.Element {
  const path = { store_uid: store };
  const loaded = useData(`plans ${store}`, (signal) =>
    get("/v1/stores/{store_uid}/tracking-plans", path, { page_size: 200 }, signal),
  );
  const [editing, setEditing] = useState<{ event_name: string; mode: Mode; schema: string }>();
  const [attempt, , failure] = useAttempt();
  const edit = (plan: Plan): Promise<void> =>
    attempt(async () => {
      const whole = await get("/v1/stores/{store_uid}/tracking-plans/{plan_uid}", {
        ...path,
        plan_uid: plan.uid,
      });
      if (whole.plan) setEditing(whole.plan);
    });
  const erase = (plan: Plan): Promise<void> =>
    attempt(async () => {
      const at = { ...path, plan_uid: plan.uid };
      await remove("/v1/stores/{store_uid}/tracking-plans/{plan_uid}", at);
      loaded.reload();
      toast(`The plan for “${plan.event_name}” is deleted.`, () =>
        void attempt(async () => {
          await post("/v1/stores/{store_uid}/tracking-plans/{plan_uid}:undelete", at);
          loaded.reload();
        }),
      );
    });
  const columns: Column<Plan>[] = [
    { name: "Event", cell: (row) => <strong>{row.event_name}</strong> },
    { name: "Mode", cell: (row) => spoken(row.mode, "PLAN_MODE_") },
    { name: "Version", num: true, cell: (row) => count(row.version), hideNarrow: true },
    { name: "Changed", cell: (row) => ago(row.update_time), hideNarrow: true },
    ...(mayChange
      ? [
          {
            name: "",
            cell: (row: Plan) => (
              <div class="row">
                <button type="button" aria-label={`Change ${row.event_name}`} onClick={() => void edit(row)}>
                  Change
                </button>
                <button type="button" class="plain" aria-label={`Delete ${row.event_name}`} onClick={() => void erase(row)}>
                  Delete
                </button>
              </div>
            ),
          },
        ]
      : []),
  ];
  const tools = mayChange && (
    <button
      type="button"
      class="primary"
      onClick={() => setEditing({ event_name: "", mode: "PLAN_MODE_OBSERVE", schema: EXAMPLE })}
    >
      New plan
    </button>
  );
  return (
    <Card flush title="Tracking plans" tools={tools}>
      {failure}
      <Show of={loaded}>
        {(data) =>
          data.plans.length ? (
            <Table label="Tracking plans" columns={columns} rows={data.plans} keyOf={(row) => row.uid} />
          ) : (
            <Empty title="Nothing is expected of events yet">
              <p>A plan is a JSON Schema for the properties of events of one name.</p>
            </Empty>
          )
        }
      </Show>
      {editing && (
        <PlanDialog
          plan={editing}
          store={store}
          list={loaded}
          onClose={() => setEditing(undefined)}
        />
      )}
    </Card>
  );
}

function PlanDialog(props: {
  plan: { event_name: string; mode: Mode; schema: string };
  store: string;
  list: Loaded<unknown>;
  onClose: () => void;
}): JSX.Element {
  const [plan, setPlan] = useState(props.plan);
  const [attempt, busy, failure] = useAttempt();
  const save = (): Promise<void> =>
    attempt(async () => {
      const { event_name, mode, schema } = plan;
      await post(
        "/v1/stores/{store_uid}/tracking-plans",
        { store_uid: props.store },
        { event_name, mode, schema },
      );
      toast("Saved. Every replica goes by it within 2 seconds.");
      props.list.reload();
      props.onClose();
    });
  return (
    <Dialog title="What is expected" onClose={props.onClose}>
      <form
        class="stack"
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <label class="field">
          Of events named
          <input
            required
            maxLength={255}
            placeholder="Order Completed"
            readOnly={props.plan.event_name !== ""}
            value={plan.event_name}
            onInput={(event) => setPlan({ ...plan, event_name: event.currentTarget.value })}
          />
        </label>
        <Segments
          label="What is done with those that don't fit"
          options={MODES}
          value={plan.mode as (typeof MODES)[number][0]}
          onChange={(mode) => setPlan({ ...plan, mode })}
        />
        <p class="soft small">
          Observe stores them with their faults; block rejects them, and keeps them to be fixed.
        </p>
        <label class="field">
          JSON Schema of their properties
          <textarea
            class="code"
            rows={12}
            spellcheck={false}
            value={plan.schema}
            onInput={(event) => setPlan({ ...plan, schema: event.currentTarget.value })}
          />
        </label>
        {failure}
        <div>
          <button type="submit" class="primary" disabled={busy}>
            Save
          </button>
        </div>
      </form>
    </Dialog>
  );
}
