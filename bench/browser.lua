-- Requests as a browser sends them: eleven fields, a random X-Request-Id, 500 paths. Prepared once, so that wrk is light.
local requests = {}

function init(args)
  math.randomseed(tonumber(args[1]) or os.time())
  for i = 1, 20000 do
    local id = string.format("%08x%08x", math.random(0, 2 ^ 31 - 1), math.random(0, 2 ^ 31 - 1))
    requests[i] = table.concat({
      "GET /p/" .. math.random(1, 500) .. " HTTP/1.1", "Host: demo.example.com",
      "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
      "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Accept-Language: en-US,en;q=0.5",
      "Accept-Encoding: gzip, deflate, br", "Cache-Control: no-cache", "Referer: https://demo.example.com/",
      "X-Request-Id: " .. id, "Cookie: session=abcdef0123456789; theme=dark", "Sec-Fetch-Mode: navigate", "DNT: 1", "", "",
    }, "\r\n")
  end
end

local next = 0
function request()
  next = next % 20000 + 1
  return requests[next]
end
