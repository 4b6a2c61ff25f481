-- Tasks that fit a filter, newest first, of one stretch of a sorted set by creation. Read-only.
-- KEYS 1 tasks or tasks_of:<label>
-- ARGV 1 prefix of task keys  2 highest score, '(…' or '+inf'  3 lowest score or '-inf'  4 most records looked at
--      5 most tasks found  6… filter (task_filter.lua)
-- Reads the records (ARGV 1 .. id, same slot by its tag).
-- Reply: {score that it came to, '' where nothing is left below; ids without a record; tasks found}, each of these
--        {score, field, value, …}
local fits = filter_of(ARGV, 6)
local budget, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local page = redis.call('ZRANGE', KEYS[1], ARGV[2], ARGV[3], 'BYSCORE', 'REV', 'LIMIT', 0, budget, 'WITHSCORES')
local vanished, found = {}, {}
for i = 1, #page, 2 do
  local task_key = ARGV[1] .. page[i]
  local fit = fits(task_key)
  if fit == nil then
    vanished[#vanished + 1] = page[i]
  elseif fit then
    local score = digits(tonumber(page[i + 1]))
    local fields = redis.call('HGETALL', task_key)
    table.insert(fields, 1, score)
    found[#found + 1] = fields
    if #found == most then return { score, vanished, found } end
  end
end
local reached = #page == 2 * budget and digits(tonumber(page[#page])) or ''
return { reached, vanished, found }
