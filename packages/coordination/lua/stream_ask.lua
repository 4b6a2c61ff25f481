-- Writes requests to a match stream as one change: a matcher that waits for them reads all of them, where the first of
-- several commands would wake it for one alone.
-- KEYS[1] match stream
-- ARGV[1] reply stream; then for each request rid, limit, timeout_ms, descriptor, the number of further names and values,
-- and these: every argument costs both ends, so the names that all requests have are known here
-- Reply: a line for each request, its entry's id, or '!' and the error.
local written = {}
local first = 2
while first <= #ARGV do
  local last = first + 4 + tonumber(ARGV[first + 4])
  local id = redis.pcall('XADD', KEYS[1], '*', 'rid', ARGV[first], 'descriptor', ARGV[first + 3],
    'limit', ARGV[first + 1], 'timeout_ms', ARGV[first + 2], 'response_stream', ARGV[1], unpack(ARGV, first + 5, last))
  written[#written + 1] = type(id) == 'table' and '!' .. id.err or id
  first = last + 1
end
return table.concat(written, '\n')
