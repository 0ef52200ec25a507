// What a shop's back end does: sends events with RudderStack's SDK for Node, unmodified.
//
// node send_with_rudderstack.cjs GATEWAY_URL WRITE_KEY TRACK_COUNT
const Analytics = require("@rudderstack/rudder-sdk-node");

const [dataPlaneUrl, writeKey, count] = process.argv.slice(2);
const analytics = new Analytics(writeKey, { dataPlaneUrl, flushInterval: 100 });

analytics.identify({ userId: "ada", traits: { plan: "gold", email: "ada@shop.example" } });
analytics.page({ userId: "ada", category: "Shop", name: "Home", properties: { url: "/" } });
analytics.screen({ userId: "ada", name: "Basket" });
analytics.group({ userId: "ada", groupId: "tea-club", traits: { size: 3 } });
analytics.alias({ userId: "ada", previousId: "anonymous-1" });
for (let number = 0; number < Number(count); number += 1) {
  analytics.track({ userId: "ada", event: "Product Viewed", properties: { number, coupon: null } });
}
analytics.flush();
