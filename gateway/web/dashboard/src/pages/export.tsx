/** A store's events as files, page by page: what breaks off goes on where it was. */

import type { JSX } from "preact";
import { useRef, useState } from "preact/hooks";

import { ApiError, getFile } from "../api";
import { saveFile } from "../csv";
import { count } from "../format";
import type { PageProps } from "../pages";
import { Card, Failure, Segments } from "../ui";

const FORMATS = [
  ["EXPORT_FORMAT_NDJSON", "NDJSON"],
  ["EXPORT_FORMAT_CSV", "CSV"],
  ["EXPORT_FORMAT_PARQUET", "Parquet"],
] as const;
type Format = (typeof FORMATS)[number][0];
const ENDINGS: Record<Format, string> = {
  EXPORT_FORMAT_NDJSON: "ndjson",
  EXPORT_FORMAT_CSV: "csv",
  EXPORT_FORMAT_PARQUET: "parquet",
};

interface Progress {
  /** What was asked for, so that going on asks for the same. */
  query: { start_time: string; end_time: string; name: string; format: Format };
  parts: Blob[];
  token: string;
  exported: number;
  total: number;
}

export function Export({ view }: PageProps): JSX.Element {
  const [format, setFormat] = useState<Format>("EXPORT_FORMAT_NDJSON");
  const [name, setName] = useState("");
  const [progress, setProgress] = useState<Progress>();
  const [failure, setFailure] = useState<ApiError>();
  const running = useRef<AbortController | null>(null);
  const [busy, setBusy] = useState(false);

  const run = async (from: Progress): Promise<void> => {
    const controller = new AbortController();
    running.current = controller;
    setBusy(true);
    setFailure(undefined);
    let at = from;
    try {
      do {
        const { content, headers } = await getFile(
          "/v1/stores/{store_uid}/events:export",
          { store_uid: view.store },
          { ...at.query, page_size: 20_000, page_token: at.token },
          controller.signal,
        );
        at = {
          ...at,
          parts: [...at.parts, content],
          token: headers.get("Next-Page-Token") ?? "",
          exported: Number(headers.get("Exported-Count") ?? 0),
          total: Number(headers.get("Total-Count") ?? 0),
        };
        setProgress(at);
      } while (at.token);
      save(at);
    } catch (error) {
      if (!controller.signal.aborted) {
        setFailure(error instanceof ApiError ? error : new ApiError(0, String(error), []));
      }
    }
    setBusy(false);
  };
  const begin = (): void => {
    const query = {
      start_time: view.range.start.toISOString(),
      end_time: view.range.end.toISOString(),
      name: name.trim(),
      format,
    };
    const fresh = { query, parts: [], token: "", exported: 0, total: 0 };
    setProgress(fresh);
    void run(fresh);
  };
  return (
    <Card title="Events as files">
      <div class="stack">
        <p class="soft">
          All events that happened in the chosen range, the latest first, with their payloads as they
          were sent. The same from a shell: <code>bin/shoptrail export</code>.
        </p>
        <form
          class="row"
          onSubmit={(event) => {
            event.preventDefault();
            begin();
          }}
        >
          <label class="field">
            Only events of this name
            <input
              value={name}
              placeholder="all"
              maxLength={255}
              onInput={(event) => setName(event.currentTarget.value)}
            />
          </label>
          <Segments label="Format" options={FORMATS} value={format} onChange={setFormat} />
          <button type="submit" class="primary" disabled={busy}>
            Export
          </button>
          {busy && (
            <button type="button" onClick={() => running.current?.abort()}>
              Stop
            </button>
          )}
        </form>
        {progress && (
          <div class="stack" role="status">
            <progress
              aria-label="Exported events"
              max={Math.max(1, progress.total)}
              value={progress.total ? progress.exported : busy ? undefined : 1}
            />
            <span class="soft small">
              {progress.total || !busy
                ? `${count(progress.exported)} of ${count(progress.total)} events`
                : "Asking…"}
              {!busy && !progress.token && progress.parts.length > 0 && ", saved"}
            </span>
            {!busy && progress.token && (
              <div>
                <button type="button" onClick={() => void run(progress)}>
                  Go on
                </button>
              </div>
            )}
          </div>
        )}
        {failure && <Failure error={failure} />}
      </div>
    </Card>
  );
}

function save({ query, parts }: Progress): void {
  const ending = ENDINGS[query.format];
  if (query.format !== "EXPORT_FORMAT_PARQUET") {
    saveFile(`events.${ending}`, new Blob(parts));
    return;
  }
  // Each page is a file of its own.
  parts.forEach((part, index) => saveFile(`events-${index + 1}.${ending}`, part));
}
