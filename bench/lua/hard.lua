-- Nothing repeats: Host drawn from 2,000 for each request, six more fields that vary, 500 paths; the backend answers with
-- a new ETag and Set-Cookie each time.
local requests = {}
function init(args)
  math.randomseed(tonumber(args[1]) or 1)
  local function random() return string.format("%08x%08x", math.random(0, 2 ^ 31 - 1), math.random(0, 2 ^ 31 - 1)) end
  for i = 1, 20000 do
    requests[i] = table.concat({
      "GET /hard/" .. math.random(1, 500) .. " HTTP/1.1", "Host: h" .. math.random(0, 1999) .. ".bench.example",
      "User-Agent: Mozilla/5.0 (X11; Linux x86_64; " .. random() .. ") AppleWebKit/537.36", "Accept: text/html,*/*;q=0.8",
      "Accept-Language: en-" .. math.random(1, 500), "Accept-Encoding: gzip, deflate, br", "Cache-Control: no-cache",
      "Referer: https://www.example.com/" .. random(), "X-Request-Id: " .. random(),
      "Traceparent: 00-" .. random() .. random() .. "-" .. random() .. "-01", "Cookie: session=" .. random(), "DNT: 1", "", "",
    }, "\r\n")
  end
end

local next = 0
function request()
  next = next % 20000 + 1
  return requests[next]
end
