-- Writes answers to one client's reply stream as one change, so that the client wakes once for all of them. For a Redis
-- Cluster, where the match stream lies on another node (stream_answer.lua does all in one elsewhere).
-- NOMKSTREAM: a client that is gone gets no stream back.
-- KEYS[1] reply stream
-- ARGV[1] most entries of it, ARGV[2..] the answers' texts
-- Reply: errors of answers that could not be delivered.
local undelivered = {}
for i = 2, #ARGV do
  local written = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[1], '*', 'reply', ARGV[i])
  if type(written) == 'table' and written.err then
    local word = string.match(written.err, '^%S+')
    if word ~= 'WRONGTYPE' and word ~= 'ERR' then return written end
    undelivered[#undelivered + 1] = written.err
  end
end
return undelivered
