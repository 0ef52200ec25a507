/** What the visitor is about to buy, kept for this tab. */

import { amount, find, type Good } from "./goods";

export interface Line {
  good: Good;
  quantity: number;
}

interface Kept {
  id: string;
  lines: Record<string, number>;
  coupon?: string;
}

export const COUPON = "TEATIME";
const SHIPPING = 490;
const NAME = "demo.cart";

let kept: Kept = JSON.parse(sessionStorage.getItem(NAME) ?? "null") ?? fresh();

function fresh(): Kept {
  return { id: `cart-${Date.now().toString(36)}`, lines: {} };
}

function keep(): void {
  sessionStorage.setItem(NAME, JSON.stringify(kept));
  dispatchEvent(new Event("cart"));
}

export const id = (): string => kept.id;
export const coupon = (): string | undefined => kept.coupon;

export const lines = (): Line[] =>
  Object.entries(kept.lines).flatMap(([name, quantity]) => {
    const good = find(name);
    return good ? [{ good, quantity }] : [];
  });

export const count = (): number => lines().reduce((sum, line) => sum + line.quantity, 0);

export function add(good: Good, quantity: number): void {
  kept.lines[good.id] = (kept.lines[good.id] ?? 0) + quantity;
  keep();
}

export function remove(good: Good): void {
  delete kept.lines[good.id];
  keep();
}

export function apply(code: string | undefined): void {
  kept = { id: kept.id, lines: kept.lines, ...(code ? { coupon: code } : {}) };
  keep();
}

export function empty(): void {
  kept = fresh();
  keep();
}

/** In cents; a coupon takes a tenth, and tax is 19 % of what is in the price. */
export function sums(): Record<"goods" | "discount" | "shipping" | "tax" | "total", number> {
  const goods = lines().reduce((sum, { good, quantity }) => sum + good.price * quantity, 0);
  const discount = kept.coupon ? Math.round(goods / 10) : 0;
  const shipping = goods ? SHIPPING : 0;
  const total = goods - discount + shipping;
  return { goods, discount, shipping, tax: total - Math.round((total * 100) / 119), total };
}

/** As events tell of it. */
export const products = (): object[] =>
  lines().map(({ good, quantity }) => ({ ...productOf(good), quantity }));

export const productOf = (good: Good): Record<string, unknown> => ({
  product_id: good.id,
  name: good.name,
  category: good.category,
  price: amount(good.price),
});
