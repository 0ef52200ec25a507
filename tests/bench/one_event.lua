-- A storefront's request: one event, each with a message id of its own.
-- wrk -s one_event.lua URL -- WRITE_KEY RUN

local threads = 0

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(args)
  write_key, run, sent = args[1], args[2], 0
end

function request()
  sent = sent + 1
  local id = run .. "-" .. thread_number .. "-" .. sent
  return wrk.format("POST", "/v1/track", {
    ["Authorization"] = "Bearer " .. write_key,
    ["Content-Type"] = "application/json",
    ["User-Agent"] = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
  }, '{"messageId":"' .. id .. '","event":"Product Viewed","anonymousId":"visitor-' .. sent % 5000
    .. '","timestamp":"2026-11-22T10:00:00.000Z","sentAt":"2026-11-22T10:00:00.250Z"'
    .. ',"properties":{"product_id":"p-' .. sent % 300 .. '","name":"Teapot","category":"Kitchen"'
    .. ',"price":39.9,"currency":"EUR","quantity":1}'
    .. ',"context":{"library":{"name":"analytics.js","version":"next-1.84.3"},"locale":"en-GB"'
    .. ',"page":{"path":"/p/' .. sent % 300 .. '","url":"https://shop.example/p/1?utm_source=news","title":"Teapot"}}}')
end
