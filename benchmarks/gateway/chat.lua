-- wrk: one small chat completion over and over; what it counted is printed as one line of JSON at the end.
local function need(name) return os.getenv(name) or error(name .. " is not set") end

wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer " .. need("BENCH_KEY")
wrk.headers["x-portkey-provider"] = "openai"
wrk.headers["x-portkey-custom-host"] = need("BENCH_UPSTREAM")
wrk.body = '{"model":"' .. need("BENCH_MODEL") .. '","max_tokens":64,"messages":['
  .. '{"role":"system","content":"You answer questions about geography."},'
  .. '{"role":"user","content":"Which city is the capital of France? One short paragraph, please."}]}'

function done(summary, latency, requests)
  local lost = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p90_ms": %.4f, "p99_ms": %.4f, "not_2xx": %d, "socket_errors": %d}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    lost.status, lost.connect + lost.read + lost.write + lost.timeout))
end
