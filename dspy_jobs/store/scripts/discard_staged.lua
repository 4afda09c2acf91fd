-- Remove up to `limit` jobs of an upload that was refused or abandoned. Returns how many are left.
-- ARGV: batch, limit.
local batch, list = ARGV[1], batch_key(ARGV[1]) .. ':jobs'
if not redis.call('ZSCORE', 'dj:staging', batch) then return 0 end
for _, id in ipairs(redis.call('LPOP', list, ARGV[2]) or {}) do
  redis.call('UNLINK', job_key(id), job_key(id) .. ':request')
end
local left = redis.call('LLEN', list)
if left == 0 then redis.call('ZREM', 'dj:staging', batch) end
return left
