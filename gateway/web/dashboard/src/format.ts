/** Numbers, money and times as people in the visitor's country write them. */

const whole = new Intl.NumberFormat();
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const share = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const change = new Intl.NumberFormat(undefined, {
  style: "percent",
  maximumFractionDigits: 0,
  signDisplay: "exceptZero",
});
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const count = (value: number | string): string => whole.format(Number(value));
export const short = (value: number): string =>
  Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
export const percent = (value: number): string => share.format(value);

/** By how much `now` differs from `before`, such as `+12%`; null if that can't be said. */
export function difference(now: number, before: number): string | null {
  return before === 0 ? null : change.format((now - before) / Math.abs(before));
}

/** An exact decimal amount; it is never made a floating-point number. */
export function money(amount: string, currency: string): string {
  if (amount === "") return "–";
  if (currency === "XXX") return `${whole.format(amount as Intl.StringNumericLiteral)} (no currency)`;
  try {
    const format = new Intl.NumberFormat(undefined, {
      style: "currency",
      currency,
      maximumFractionDigits: 4,
    });
    return format.format(amount as Intl.StringNumericLiteral);
  } catch {
    return `${amount} ${currency}`;
  }
}

export function shortMoney(amount: number, currency: string): string {
  return new Intl.NumberFormat(undefined, {
    style: "currency",
    currency,
    notation: Math.abs(amount) < 10_000 ? "standard" : "compact",
    maximumFractionDigits: Math.abs(amount) < 100 ? 2 : Math.abs(amount) < 10_000 ? 0 : 1,
  }).format(amount);
}

export function dateTime(text: string | undefined, zone: string): string {
  if (!text) return "–";
  return new Intl.DateTimeFormat(undefined, {
    timeZone: zone,
    dateStyle: "medium",
    timeStyle: "short",
  }).format(new Date(text));
}

export function timeOfDay(text: string, zone: string): string {
  return new Intl.DateTimeFormat(undefined, { timeZone: zone, timeStyle: "medium" }).format(
    new Date(text),
  );
}

export function period(time: string, interval: string, zone: string): string {
  const options: Intl.DateTimeFormatOptions =
    interval === "HOUR"
      ? { weekday: "short", hour: "numeric", minute: "2-digit" }
      : { weekday: interval === "DAY" ? "short" : undefined, day: "numeric", month: "short" };
  return new Intl.DateTimeFormat(undefined, { timeZone: zone, ...options }).format(new Date(time));
}

export function ago(text: string | undefined): string {
  if (!text) return "never";
  const seconds = (Date.parse(text) - Date.now()) / 1000;
  const steps: [number, Intl.RelativeTimeFormatUnit][] = [
    [60, "second"],
    [60, "minute"],
    [24, "hour"],
    [30, "day"],
    [12, "month"],
    [Infinity, "year"],
  ];
  let value = seconds;
  for (const [size, unit] of steps) {
    if (Math.abs(value) < size) return relative.format(Math.round(value), unit);
    value /= size;
  }
  return "";
}

/** Such as `2 days`, from what Protobuf writes as `172800s`. */
export function duration(text: string | undefined): string {
  const seconds = Number.parseFloat(text ?? "0");
  const [value, unit] =
    seconds >= 86_400
      ? [seconds / 86_400, "day"]
      : seconds >= 3600
        ? [seconds / 3600, "hour"]
        : seconds >= 60
          ? [seconds / 60, "minute"]
          : [seconds, "second"];
  return new Intl.NumberFormat(undefined, {
    style: "unit",
    unit,
    unitDisplay: "long",
    maximumFractionDigits: 1,
  }).format(value);
}

/** What an enum's value is called, such as `Page views` of `MEASURE_PAGE_VIEWS`. */
export function spoken(value: string, prefix: string): string {
  const words = value.replace(prefix, "").toLowerCase().replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
