-- A back end's request: a batch of 50 events, each with a message id of its own.
-- wrk -s fifty_events.lua URL -- WRITE_KEY RUN

local threads = 0

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
end

function init(args)
  write_key, run, sent = args[1], args[2], 0
end

local function event(number)
  return '{"type":"track","messageId":"' .. run .. "-" .. thread_number .. "-" .. number
    .. '","event":"Product Viewed","userId":"customer-' .. number % 5000
    .. '","timestamp":"2026-11-22T10:00:00.000Z","properties":{"product_id":"p-' .. number % 300
    .. '","name":"Teapot","category":"Kitchen","price":39.9,"currency":"EUR","quantity":1}'
    .. ',"context":{"library":{"name":"analytics-node","version":"3.1.0"}}}'
end

function request()
  local events = {}
  for place = 1, 50 do
    sent = sent + 1
    events[place] = event(sent)
  end
  return wrk.format("POST", "/v1/batch", {
    ["Authorization"] = "Bearer " .. write_key,
    ["Content-Type"] = "application/json",
  }, '{"sentAt":"2026-11-22T10:00:00.250Z","batch":[' .. table.concat(events, ",") .. "]}")
end
