-- Forget ids whose records' lifetimes are over, up to `limit` of each index.
-- ARGV: first job id to keep, first batch id to keep, limit.
for i, index in ipairs({'dj:jobs', 'dj:batches'}) do
  local old = redis.call('ZRANGEBYLEX', index, '-', '(' .. ARGV[i], 'LIMIT', 0, ARGV[3])
  for _, id in ipairs(old) do
    if redis.call('EXISTS', 'dj:' .. id) == 0 then redis.call('ZREM', index, id) end
  end
end
return 1
