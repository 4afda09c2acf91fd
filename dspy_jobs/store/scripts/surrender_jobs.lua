-- A worker that must stop now gives back everything it holds, running or not, up to `limit` a call. Nobody failed, so
-- no attempt is counted. A job whose cancellation was asked for ends here. Returns {how many it let go, rows of
-- `tell`}.
-- ARGV: now, worker, limit, problem of the attempts cut short, canceled problem.
local now, worker, returned = clock(ARGV[1]), ARGV[2], 0
for _, id in ipairs({unpack(held_by(worker), 1, ARGV[3])}) do
  redis.call('SREM', held_key(worker), id)
  local f = fields(id)
  if f and f.owner == worker then
    returned = returned + 1
    if redis.call('HGET', job_key(id), 'cancel') == '1' then
      keep_attempt(id, f, ARGV[4], now)
      end_job(id, f, 'canceled', unstarted_outcome(id, 'REVOKED', 'JobCanceled', ARGV[5], now), now)
    else
      if f.status == 'running' then put_back(id, f, ARGV[4], now) else let_go(id, f) end
      send_job(id, f, now, true)
    end
  end
end
return {returned, told}
