// What a shop's back end does: sends events with Segment's SDK for Node, unmodified.
//
// node send_with_segment.mjs GATEWAY_URL WRITE_KEY TRACK_COUNT
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, count] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey });
analytics.on("error", (failure) => {
  console.error(failure);
  process.exitCode = 1;
});

analytics.identify({ userId: "ada", traits: { plan: "gold", email: "ada@shop.example" } });
analytics.page({ userId: "ada", category: "Shop", name: "Home", properties: { url: "/" } });
analytics.screen({ userId: "ada", name: "Basket" });
analytics.group({ userId: "ada", groupId: "tea-club", traits: { size: 3 } });
analytics.alias({ userId: "ada", previousId: "anonymous-1" });
await analytics.flush();
for (let number = 0; number < Number(count); number += 1) {
  analytics.track({ userId: "ada", event: "Product Viewed", properties: { number, coupon: null } });
}
await analytics.closeAndFlush();
