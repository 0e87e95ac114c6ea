-- wrk: POST the file named by the first argument; the last line printed is JSON.
function init(arguments)
  wrk.method = "POST"
  wrk.body = assert(io.open(arguments[1], "rb")):read("*a")
end

function done(summary, latency)
  local e = summary.errors
  local figures = '{"requests_per_second": %.3f, "p50_ms": %.4f, "p99_ms": %.4f, "errors": %d}\n'
  local rate = summary.requests / summary.duration * 1e6
  local errors = e.connect + e.read + e.write + e.status + e.timeout
  io.write(figures:format(rate, latency:percentile(50) / 1000, latency:percentile(99) / 1000, errors))
end
