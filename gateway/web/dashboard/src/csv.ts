/** Hands what is on the screen over as a file. */

export type Rows = (string | number)[][];

function cell(value: string | number): string {
  let text = String(value);
  // Spreadsheets would run what begins so.
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function toCsv(rows: Rows): string {
  return rows.map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

export function saveFile(name: string, content: Blob): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function saveCsv(name: string, rows: Rows): void {
  saveFile(`${name}.csv`, new Blob([toCsv(rows)], { type: "text/csv" }));
}

let exporter: (() => { name: string; rows: Rows } | null) | null = null;

/** The page that is shown says what "Export" means. */
export function setExporter(next: typeof exporter): void {
  exporter = next;
}

export function exportScreen(): boolean {
  const found = exporter?.();
  if (!found || found.rows.length < 2) return false;
  saveCsv(found.name, found.rows);
  return true;
}
