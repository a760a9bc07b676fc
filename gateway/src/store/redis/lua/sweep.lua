-- What is due in a room, and what becomes of the connections of a node.

-- Users that leave in one step, and users looked at for one in `D`: some 5 ms of Redis.
local MOST_LEAVING, MOST_LOOKED_AT = 1000, 500
-- How often messages past retention are looked for in a room where nothing happens: so many times while they are kept.
local PURGES = 24

-- W: no arguments. Answer: { left, purged, ms at which something is due again, 1 if the room is to be archived }.
OPS.W = function(c, i, at)
  if not c.epoch then
    gone(c, at)
    return i
  end
  rest(c)
  cold(c)
  if c.guard and c.guard.idle and not c.shut and c.life <= c.now and c.events_n == 0 then set_status(c, 'completed') end
  if c.shut then
    -- Whoever sweeps it archives it now; whoever looks in later does if that has failed.
    local pause = not c.completed and tonumber(read('HGET', c.keys[META], 'pause') or 0) or 0
    c.out[at], c.kept = { 0, 0, max(c.now + c.limits.again, pause), pause <= c.now and 1 or 0 }, true
    return i
  end
  local keys, grace, left, still = c.keys, c.limits.grace, 0, members(c)
  local bound = format('%d', c.now - grace)
  local ids = read('ZRANGEBYSCORE', keys[AWAY], '-inf', bound, 'LIMIT', 0, MOST_LEAVING)
  fetch(c, ids)
  for _, id in ipairs(ids) do
    local rec = c.users[id]
    if not rec or next(rec.conns) then
      set_away(c, id, false)
    elseif rec.away and rec.away <= c.now - grace then
      depart(c, id, rec, 'timeout', rec.away)
      left = left + 1
    end
  end
  c.expired = c.expired or expired(c)
  if c.guard then
    for _, part in ipairs(STANDING) do read('ZCARD', side_key(c, part)) end
    c.ended = true
  end
  local purged = c.expired and #c.expired or 0
  local due
  if #ids == MOST_LEAVING or purged == MOST_EXPIRED then
    due = c.now
  else
    due = max(c.life, c.now) + 1000
    local oldest = read('ZRANGE', keys[MESSAGES], purged, purged, 'WITHSCORES')[2]
    if oldest then
      local kept = c.limits.retention
      due = min(due, max(oldest + kept, c.now + max(grace, floor(kept / PURGES))))
    end
    if c.members > 0 then
      local first = read('ZRANGEBYSCORE', keys[AWAY], '(' .. bound, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)[2]
      -- Whoever is lost from now on is due no sooner than a grace time from now.
      due = min(due, c.now + grace, first and first + grace or due)
    end
  end
  c.out[at] = { left, purged, due, 0 }
  return i
end

-- D: instance, cursor (empty at first). Answer: { away, cursor (empty at the end) }.
OPS.D = function(c, i, at)
  local instance, cursor = c.argv[i], c.argv[i + 1]
  if not c.epoch then
    gone(c, at)
    return i + 2
  end
  if c.shut then
    c.out[at] = { 0, '' }
    return i + 2
  end
  rest(c)
  cold(c)
  members(c)
  local away = 0
  local reply = read('HSCAN', c.keys[USERS], cursor == '' and '0' or cursor, 'COUNT', MOST_LOOKED_AT)
  local items = reply[2]
  for k = 1, #items, 2 do
    local id, rec = items[k], nil
    -- Most records do not name it, and need not be read for that.
    if c.users[id] == nil and find(items[k + 1], instance, 1, true) then c.users[id] = record(c, id, items[k + 1]) end
    rec = c.users[id]
    if rec then
      local gone_any = false
      for connection, node in pairs(rec.conns) do
        if node == instance then rec.conns[connection], gone_any = nil, true end
      end
      if gone_any then c.touched[id], c.touched_any = true, true end
      if gone_any and not next(rec.conns) then
        lose(c, id, rec)
        away = away + 1
      end
    end
  end
  c.out[at] = { away, reply[1] == '0' and '' or reply[1] }
  return i + 2
end

-- R: instance, a list of user, name and connection. Answer: 0.
OPS.R = function(c, i, at)
  local argv, instance, n = c.argv, c.argv[i], tonumber(c.argv[i + 1])
  local stop = i + 2 + 3 * n
  if c.shut then
    gone(c, at)
    return stop
  end
  rest(c)
  cold(c)
  members(c)
  local ids = {}
  for k = i + 2, stop - 1, 3 do ids[#ids + 1] = argv[k] end
  fetch(c, ids)
  for k = i + 2, stop - 1, 3 do
    local id, connection = argv[k], argv[k + 2]
    local rec = c.users[id]
    if not rec then
      -- Whoever was put out meanwhile has yet to be told so by its gateway.
      if not put_out_for(c, id) then arrive(c, id, argv[k + 1], {}, connection, instance) end
    elseif rec.conns[connection] ~= instance then
      rec.conns[connection] = instance
      if rec.away then
        rec.away = nil
        set_away(c, id, false)
        announce(c, id, 'back', quote(id))
      end
      c.touched[id], c.touched_any = true, true
    end
  end
  c.out[at] = 0
  return stop
end

-- V: a list of user and position (JSON). Answer: 0.
OPS.V = function(c, i, at)
  local argv, n = c.argv, tonumber(c.argv[i])
  local stop = i + 1 + 2 * n
  if c.shut then
    gone(c, at)
    return stop
  end
  rest(c)
  read('HLEN', c.keys[POSITIONS])
  for k = i + 1, stop - 1, 2 do
    local id = argv[k]
    local rec = c.users[id]
    if rec or rec == nil and not c.fresh and read('HEXISTS', c.keys[USERS], id) == 1 then
      c.places[id], c.moved = argv[k + 1], c.moved or {}
      c.moved[id] = true
    end
  end
  c.out[at], c.kept = 0, true
  return stop
end

-- A: a list of users. Answer: 0.
OPS.A = function(c, i, at)
  local argv, n = c.argv, tonumber(c.argv[i])
  if c.shut then
    gone(c, at)
    return i + 1 + n
  end
  if not c.fresh then read('ZCARD', c.keys[SEEN]) end
  c.active = c.active or {}
  for k = i + 1, i + n do
    local m = #c.active
    c.active[m + 1], c.active[m + 2] = c.ts, argv[k]
  end
  c.out[at], c.kept = 0, true
  return i + 1 + n
end
