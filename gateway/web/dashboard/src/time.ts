/** Days and ranges by the clock of a time zone. */

export interface Range {
  start: Date;
  end: Date;
  interval: "HOUR" | "DAY" | "WEEK";
  /** Whether its last period is not over yet. */
  open: boolean;
}

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

export const PRESETS = {
  today: "Today",
  yesterday: "Yesterday",
  "7d": "Last 7 days",
  "30d": "Last 30 days",
  "12w": "Last 12 weeks",
  month: "This month",
  custom: "Custom…",
} as const;
export type Preset = keyof typeof PRESETS;

export const COMPARISONS = {
  previous: "Previous period",
  year: "A year before",
  none: "No comparison",
} as const;
export type Comparison = keyof typeof COMPARISONS;

const formats = new Map<string, Intl.DateTimeFormat>();

function clock(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    formats.set(zone, format);
  }
  return format;
}

/** What the zone's clock shows, as if it were UTC's. */
function shown(time: number, zone: string): number {
  const parts: Record<string, number> = {};
  for (const { type, value } of clock(zone).formatToParts(time)) parts[type] = Number(value);
  return Date.UTC(
    parts.year ?? 0,
    (parts.month ?? 1) - 1,
    parts.day,
    parts.hour,
    parts.minute,
    parts.second,
  );
}

/** When the zone's clock shows this, given as if it were UTC's. */
function timeAt(wall: number, zone: string): number {
  let time = wall - (shown(wall, zone) - wall);
  time += wall - shown(time, zone);
  return time;
}

/** The midnight at which the day `days` after that of `time` begins. */
export function midnight(time: number, zone: string, days = 0): number {
  const day = Math.floor(shown(time, zone) / DAY) * DAY;
  return timeAt(day + days * DAY, zone);
}

/** Such as `2026-01-31`. */
export function dayOf(time: number, zone: string): string {
  return new Date(shown(time, zone)).toISOString().slice(0, 10);
}

function readDay(text: string, zone: string): number | null {
  const time = Date.parse(`${text}T00:00:00Z`);
  return Number.isNaN(time) ? null : timeAt(time, zone);
}

export function rangeOf(
  preset: Preset,
  zone: string,
  now: number,
  custom: { from: string; to: string },
): Range {
  const today = midnight(now, zone);
  const until = (start: number, end = now): Range => {
    const days = (end - start) / DAY;
    const interval = days <= 2.1 ? "HOUR" : days <= 92 ? "DAY" : "WEEK";
    return { start: new Date(start), end: new Date(end), interval, open: end >= now };
  };
  switch (preset) {
    case "today":
      return until(today);
    case "yesterday":
      return until(midnight(now, zone, -1), today);
    case "30d":
      return until(midnight(now, zone, -29));
    case "12w":
      return { ...until(midnight(now, zone, -83)), interval: "WEEK" };
    case "month":
      return until(readDay(`${dayOf(now, zone).slice(0, 7)}-01`, zone) ?? today);
    case "custom": {
      const from = readDay(custom.from, zone) ?? midnight(now, zone, -6);
      const last = readDay(custom.to, zone) ?? today;
      return until(from, midnight(Math.max(from, last), zone, 1));
    }
    default:
      return until(midnight(now, zone, -6));
  }
}

/** The range to compare with, of the same length by the clock; null if none is asked for. */
export function comparedWith(range: Range, comparison: Comparison, zone: string): Range | null {
  if (comparison === "none") return null;
  const [start, end] = [range.start.getTime(), range.end.getTime()];
  const walls = [shown(start, zone), shown(end, zone)] as const;
  let shift: number;
  if (comparison === "year") {
    const before = new Date(walls[0]);
    shift = walls[0] - before.setUTCFullYear(before.getUTCFullYear() - 1);
  } else {
    shift = Math.max(1, Math.ceil((walls[1] - walls[0]) / DAY)) * DAY;
    if (range.interval === "WEEK") shift = Math.ceil(shift / (7 * DAY)) * 7 * DAY;
  }
  return {
    start: new Date(timeAt(walls[0] - shift, zone)),
    end: new Date(timeAt(walls[1] - shift, zone)),
    interval: range.interval,
    open: false,
  };
}

export function ownZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

export function isZone(zone: string): boolean {
  try {
    clock(zone);
    return true;
  } catch {
    return false;
  }
}
