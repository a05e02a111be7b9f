-- One thread, one connection, one client: with its own User-Agent, cookie and language, eleven fields as a browser sends
-- them, a random X-Request-Id, 500 paths. Requests are prepared once, so that the load is light.
local count = 0
function setup(thread)
  count = count + 1
  thread:set("id", count)
end

local requests = {}
function init(args)
  math.randomseed((tonumber(args[1]) or 1) * 1000 + id)
  local prefix = args[2] or "/p/"
  local extra = args[3] or ""
  local function random() return string.format("%08x%08x", math.random(0, 2 ^ 31 - 1), math.random(0, 2 ^ 31 - 1)) end
  local agent = string.format("Mozilla/5.0 (X11; Linux x86_64; rv:%d) AppleWebKit/537.36 Chrome/%d.0 Safari/537.36", id, 80 + id % 60)
  local cookie, language = "session=" .. random() .. "; theme=dark", string.format("en-%d,en;q=0.%d", id, id % 10)
  for i = 1, 500 do
    requests[i] = table.concat({
      "GET " .. prefix .. math.random(1, 500) .. " HTTP/1.1", "Host: demo.example.com", "User-Agent: " .. agent,
      "Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "Accept-Language: " .. language,
      "Accept-Encoding: gzip, deflate, br", "Cache-Control: no-cache", "Referer: https://demo.example.com/",
      "X-Request-Id: " .. random(), "Cookie: " .. cookie, "Sec-Fetch-Mode: navigate", "DNT: 1" .. extra, "", "",
    }, "\r\n")
  end
end

local next = 0
function request()
  next = next % 500 + 1
  return requests[next]
end
