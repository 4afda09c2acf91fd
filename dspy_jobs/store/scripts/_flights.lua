-- Single flight: of jobs that would make the same answer at the same moment one, the leader, runs; the others follow
-- it. A follower is queued without a message and without a worker. `dj:flight:{key}` names the leader while it runs,
-- also while it waits for another worker after its own was lost, and for a while after it succeeded; the followers
-- are in `dj:flight:{key}:followers`. They are sent again when the flight is over, bearing the leader whose answer is
-- theirs if there is one.

-- How long (ms) the leader is named after it succeeded: for jobs that looked for a stored answer just before.
local LANDED = 30000
-- Followers sent in one step, and in one message.
local STEP, CHUNK = 500, 25
-- Leaders a job follows in vain before it runs beside the next one: equal jobs that all fail are not to take turns.
local MOST_FOLLOWED = 3

local function flight_key(key) return 'dj:flight:' .. key end

-- Who leads a flight at this moment.
local function leader_of(key)
  local leader = redis.call('GET', flight_key(key))
  if leader and redis.call('HGET', job_key(leader), 'leads') == key then return leader end
end

-- Send some followers; the housekeepers send the rest. Without an answer for them a few will do, of which the first to
-- start leads: to send all of them each time would cost the square of their number where all fail. Answers whether
-- more can be sent at once.
local function send_followers(key, leader, now)
  local list, groups, sent, looked = flight_key(key) .. ':followers', {}, 0, 0
  if leader == '' then leader = redis.call('HGET', 'dj:landing', key) or '' end -- an earlier answer is as good
  if leader == '' and leader_of(key) then -- they follow that one now
    redis.call('HDEL', 'dj:landing', key)
    return false
  end
  repeat
    local ids = redis.call('LPOP', list, CHUNK) or {}
    for _, id in ipairs(ids) do
      local f = fields(id)
      if f and f.status == 'queued' and redis.call('HGET', job_key(id), 'follows') == key then
        redis.call('HDEL', job_key(id), 'follows')
        if leader ~= '' then redis.call('HSET', job_key(id), 'answer', leader) end
        add_to_group(groups, id, f)
        sent = sent + 1
      end
    end
    looked = looked + #ids
  until #ids == 0 or looked >= STEP or leader == '' and sent > 0
  send_groups(groups, CHUNK, now, true)
  local is_more = redis.call('EXISTS', list) == 1
  if is_more then redis.call('HSET', 'dj:landing', key, leader) else redis.call('HDEL', 'dj:landing', key) end
  return is_more and (leader ~= '' or sent == 0)
end

-- A job leads no more: it has ended, or waits for something its followers need not wait for.
end_flight = function(id, has_succeeded, now)
  local key = redis.call('HGET', job_key(id), 'leads')
  if not key then return end
  redis.call('HDEL', job_key(id), 'leads')
  if redis.call('GET', flight_key(key)) ~= id then return end
  if has_succeeded then
    redis.call('SET', flight_key(key), id, 'PX', LANDED)
  else
    redis.call('DEL', flight_key(key))
  end
  if redis.call('EXISTS', flight_key(key) .. ':followers') == 1 then
    send_followers(key, has_succeeded and id or '', now)
  end
end

-- Whether somebody else makes the answer a job is after, or has just made it: 'following' or 'answered', and who.
-- An answer made before `oldest` (ms) is not wanted.
local function find_leader(id, key, oldest)
  local leader = redis.call('GET', flight_key(key))
  if not leader or leader == id then return nil end
  local l = redis.call('HMGET', job_key(leader), 'leads', 'status', 'ended_at')
  if l[1] == key then return 'following', leader end
  if l[2] == 'succeeded' and tonumber(l[3]) >= oldest and redis.call('EXISTS', outcome_key(leader)) == 1 then
    return 'answered', leader
  end
end

-- A single job without a message is not found by its message's age when its time to start is over; a batch looks after
-- its own.
local function watch_expiry(id, f)
  if not f.started_at and (f.batch == '' or f.tries) then redis.call('ZADD', 'dj:expiring', f.expires_at, id) end
end

-- Let a job wait for another's answer.
local function follow(id, f, key)
  let_go(id, f)
  watch_expiry(id, f)
  redis.call('HSET', job_key(id), 'follows', key, 'followed', f.followed + 1)
  redis.call('RPUSH', flight_key(key) .. ':followers', id)
end

-- Let a job make an answer that others may follow, unless somebody else does.
local function lead(id, key)
  if (leader_of(key) or id) ~= id then return end
  redis.call('SET', flight_key(key), id)
  redis.call('HSET', job_key(id), 'leads', key)
end

local function client_parked(client) return 'dj:client:' .. client .. ':parked' end

-- Keep a job until its client may spend again.
local function park_client(id, f, ends, now)
  end_flight(id, false, now)
  redis.call('RPUSH', client_parked(f.client), id)
  redis.call('SADD', 'dj:waiting_clients', f.client)
  redis.call('HSET', job_key(id), 'parked', '1', 'wait', 'budget_exhausted', 'until', ms(ends))
  watch_expiry(id, f)
end
