-- Queue again what workers held whose lease has run out. Any live process may run it. At most `limit` jobs a call.
-- A job that lost its worker too often fails as `worker_lost`. Answers {recovered, failed, rows of `tell`,
-- rows of a lost worker and how many jobs it held}.
-- A lease runs only while somebody watches. If nobody came here for half of `grace` (ms), Redis was away or stood
-- still, and live workers could not renew: they get that long before any of them is taken for lost.
-- ARGV: now, limit, largest number of losses, worker_lost problem, canceled problem, grace.
local now, left, recovered, failed, sums, lost = clock(ARGV[1]), tonumber(ARGV[2]), 0, 0, {}, {}
local grace, last = tonumber(ARGV[6]), redis.call('HGET', 'dj:watch', 'last')
if not last or now - tonumber(last) > grace / 2 then redis.call('HSET', 'dj:watch', 'since', ms(now)) end
redis.call('HSET', 'dj:watch', 'last', ms(now))
if now < tonumber(redis.call('HGET', 'dj:watch', 'since')) + grace then return {0, 0, told, lost} end
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', 'dj:workers', '-inf', now, 'LIMIT', 0, 20)) do
  local before = left
  for _, id in ipairs(held_by(worker)) do
    if left <= 0 then break end
    redis.call('SREM', held_key(worker), id)
    left = left - 1
    local f, key = fields(id), job_key(id)
    if f and f.status == 'queued' and f.owner == worker then
      let_go(id, f)
      send_job(id, f, now, true)
      bump(sums, 'dj:counted', 'recovered|' .. f.queue, 1)
      recovered = recovered + 1
    elseif f and f.status == 'running' and f.owner == worker then
      local losses = redis.call('HINCRBY', key, 'lost', 1)
      if redis.call('HGET', key, 'cancel') == '1' then
        keep_attempt(id, f, ARGV[4], now)
        end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', ARGV[5], now), now)
      elseif losses >= tonumber(ARGV[3]) then
        keep_attempt(id, f, ARGV[4], now)
        end_job(id, f, 'failed', unstarted_outcome(id, 'FAILURE', 'JobFailed', ARGV[4], now), now)
        failed = failed + 1
      else
        put_back(id, f, ARGV[4], now)
        send_job(id, f, now, true)
        bump(sums, 'dj:counted', 'recovered|' .. f.queue, 1)
        recovered = recovered + 1
      end
    end
  end
  lost[#lost + 1] = {worker, before - left}
  if redis.call('SCARD', held_key(worker)) == 0 then
    redis.call('ZADD', 'dj:lost_workers', redis.call('ZSCORE', 'dj:workers', worker) or ms(now), worker)
    redis.call('PEXPIRE', 'dj:lost_workers', 3600000)
    redis.call('ZREMRANGEBYSCORE', 'dj:lost_workers', '-inf', '(' .. ms(now - 3600000))
    redis.call('ZREM', 'dj:workers', worker)
    redis.call('DEL', cancel_key(worker))
  end
end
add_all(sums)
return {recovered, failed, told, lost}
