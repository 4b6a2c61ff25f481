-- Writes requests to a match stream as one change: a matcher that waits for them reads all of them, where the first of
-- several commands would wake it for one alone.
-- KEYS[1] match stream
-- ARGV: for each request the number of its fields and values, then these
-- Reply: for each request its entry's id, or '!' and the error.
local written = {}
local first = 1
while first <= #ARGV do
  local last = first + tonumber(ARGV[first])
  local id = redis.pcall('XADD', KEYS[1], '*', unpack(ARGV, first + 1, last))
  written[#written + 1] = type(id) == 'table' and '!' .. id.err or id
  first = last + 1
end
return written
