/**
 * Tells Shoptrail from a shop's own server which orders were placed, refunded and cancelled.
 *
 * Copy this file into the shop: it needs nothing but Node 18. What is told with a secret key
 * counts as confirmed. Everything may be told again: it counts once.
 *
 *     const orders = new Orders("https://events.shop.example", secretKey);
 *     await orders.completed("o-1", { total: "39.80", currency: "EUR" }, { anonymousId: cookie });
 *     await orders.refunded("o-1", "r-1", { total: "19.90", currency: "EUR" });
 */

/** Shoptrail has not stored the event; the message says why. */
export class NotStored extends Error {}

/**
 * @typedef {object} Who
 * @property {string} [userId]
 * @property {string} [anonymousId] the cookie `shoptrail_id`, by which an order belongs to a visit
 * @property {Date} [time] when it happened; now if it isn't given
 */

export class Orders {
  #url;
  #authorization;
  #patience;

  /**
   * @param {string} url the gateway's
   * @param {string} secretKey
   * @param {{patienceSeconds?: number}} [options] for how long an event is tried again if the
   *   gateway can't be reached
   */
  constructor(url, secretKey, { patienceSeconds = 30 } = {}) {
    this.#url = `${url.replace(/\/+$/, "")}/v1/track`;
    this.#authorization = `Basic ${Buffer.from(`${secretKey}:`).toString("base64")}`;
    this.#patience = patienceSeconds * 1000;
  }

  /**
   * An order was placed. Amounts are texts, such as "39.80", or whole numbers.
   * @param {string} orderId
   * @param {{total: string | number, currency: string, products?: object[]}} facts
   * @param {Who} [who]
   */
  completed(orderId, facts, who) {
    return this.#tell("Order Completed", orderId, "order-completed", facts, who);
  }

  /**
   * So much of an order was paid back; each refund has an id of its own.
   * @param {string} orderId
   * @param {string} refundId
   * @param {{total: string | number, currency: string}} facts
   * @param {Who} [who]
   */
  refunded(orderId, refundId, facts, who) {
    const all = { refund_id: refundId, ...facts };
    return this.#tell("Order Refunded", orderId, `order-refunded-${refundId}`, all, who);
  }

  /**
   * An order was cancelled.
   * @param {string} orderId
   * @param {object} [facts]
   * @param {Who} [who]
   */
  cancelled(orderId, facts, who) {
    return this.#tell("Order Cancelled", orderId, "order-cancelled", facts, who);
  }

  async #tell(event, orderId, kind, facts, { userId, anonymousId, time = new Date() } = {}) {
    await this.#send({
      event,
      // The same whenever it is told again.
      messageId: `${kind}-${orderId}`,
      anonymousId: anonymousId ?? (userId ? undefined : `order-${orderId}`),
      userId,
      timestamp: time.toISOString(),
      properties: { order_id: orderId, ...facts },
      context: { library: { name: "shoptrail-orders-node", version: "0.1.0" } },
    });
  }

  async #send(event) {
    const headers = { Authorization: this.#authorization, "Content-Type": "application/json" };
    const request = { method: "POST", headers, body: JSON.stringify(event) };
    const deadline = Date.now() + this.#patience;
    for (let pause = 500; ; pause = Math.min(pause * 2, 10_000)) {
      let wait = pause * (0.5 + Math.random() / 2);
      let failure;
      try {
        const answer = await fetch(this.#url, { ...request, signal: AbortSignal.timeout(10_000) });
        if (answer.ok) return check(await answer.json());
        failure = new NotStored(`${answer.status}: ${(await answer.text()).slice(0, 500)}`);
        if (answer.status !== 429 && answer.status < 500) throw failure;
        wait = 1000 * Number(answer.headers.get("Retry-After")) || wait;
      } catch (error) {
        if (error instanceof NotStored) throw error;
        failure = new NotStored(`no answer: ${error.message}`);
      }
      if (Date.now() + wait > deadline) throw failure;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}

function check(answer) {
  if (answer.accepted || answer.duplicates) return;
  throw new NotStored(JSON.stringify(answer.results?.[0] ?? answer));
}
