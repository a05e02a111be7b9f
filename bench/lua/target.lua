-- The same request again and again, with fields and a body as the arguments say: METHOD PATH BODY_BYTES FIELD…
local text
function init(args)
  local size = tonumber(args[3]) or 0
  local lines = { (args[1] or "GET") .. " " .. (args[2] or "/") .. " HTTP/1.1", "Host: demo.example.com" }
  for i = 4, #args do lines[#lines + 1] = args[i] end
  if size > 0 then lines[#lines + 1] = "Content-Length: " .. size end
  text = table.concat(lines, "\r\n") .. "\r\n\r\n" .. string.rep("x", size)
end

function request() return text end
