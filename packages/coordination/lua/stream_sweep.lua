-- Deletes consumers of dead processes once their pending list is empty (claimed by the living).
-- KEYS[1] match stream
-- ARGV[1] group, ARGV[2] own consumer (kept), ARGV[3] idle ms from which a consumer is dead
-- Reply: how many were deleted.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
local count = 0
for _, flat in ipairs(consumers) do
  local info = {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  if info.name ~= ARGV[2] and info.pending == 0 and info.idle >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], info.name)
    count = count + 1
  end
end
return count
