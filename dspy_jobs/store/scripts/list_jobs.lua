-- Look through the newest jobs older than a cursor for those that fit. Reads at most `scan` records.
-- Answers {last id looked at or '', matching ids…}.
-- ARGV: cursor ('' = newest), limit, scan, status, program, model, variant, batch ('' = any).
local from = ARGV[1] == '' and '+' or '(' .. ARGV[1]
local ids = redis.call('ZREVRANGEBYLEX', 'dj:jobs', from, '-', 'LIMIT', 0, ARGV[3])
local found, limit, last = {''}, tonumber(ARGV[2]), ''
for _, id in ipairs(ids) do
  local v = redis.call('HMGET', job_key(id), 'status', 'program', 'model', 'variant', 'batch')
  if not v[1] then
    redis.call('ZREM', 'dj:jobs', id)
  else
    local fits = true
    for i = 1, 5 do fits = fits and (ARGV[3 + i] == '' or ARGV[3 + i] == v[i]) end
    if fits then found[#found + 1] = id end
  end
  last = id
  if #found > limit then break end
end
if #ids < tonumber(ARGV[3]) and #found <= limit then last = '' end
found[1] = last
return found
