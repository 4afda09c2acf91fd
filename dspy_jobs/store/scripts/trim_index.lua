-- Forget ids whose records' lifetimes are over, up to `limit` of each index. `share` (0 to 1) says where among the old
-- ones to look, so that old records which live on, as of jobs retried late, do not stand before all others.
-- ARGV: first job id to keep, first batch id to keep, limit, share.
for i, index in ipairs({'dj:jobs', 'dj:batches'}) do
  local spare = redis.call('ZLEXCOUNT', index, '-', '(' .. ARGV[i]) - tonumber(ARGV[3])
  local start = math.floor((math.max(0, spare) + 1) * tonumber(ARGV[4]))
  local old = redis.call('ZRANGEBYLEX', index, '-', '(' .. ARGV[i], 'LIMIT', start, ARGV[3])
  for _, id in ipairs(old) do
    if redis.call('EXISTS', 'dj:' .. id) == 0 then redis.call('ZREM', index, id) end
  end
end
return 1
