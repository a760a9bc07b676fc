-- What moderators do about users.

-- A member is put out, for `reason`. Makes the event by which every gateway puts its connections out, in a room that
-- counts, too.
local function put_out(c, id, reason, more)
  local rec = user(c, id)
  if not rec then return false end
  members(c)
  if c.pending then flush(c) end
  local before = c.seq
  depart(c, id, rec, reason, rec.away or c.now, more)
  if c.pending then flush(c) end
  if c.seq == before then
    append(c, 'presence', nil, '{"left":[{"user":' .. quote(id) .. ',"reason":"' .. reason .. '"' .. more .. '}]}')
  end
  return true
end

local ACTIONS = {
  mute = function(c, id, by, ends, data)
    stand(c, 'mutes', id, ends)
    append(c, 'user.muted', by, data)
  end,
  unmute = function(c, id, by, _, data)
    if not standing(c, 'mutes', id) then return end
    stand(c, 'mutes', id, false)
    append(c, 'user.unmuted', by, data)
  end,
  ban = function(c, id, by, ends, data, more)
    stand(c, 'bans', id, ends)
    append(c, 'user.banned', by, data)
    put_out(c, id, 'banned', more)
  end,
  unban = function(c, id, by, _, data)
    local kicked = KICKED .. id
    if not (standing(c, 'bans', id) or standing(c, 'bans', kicked)) then return end
    stand(c, 'bans', id, false)
    stand(c, 'bans', kicked, false)
    append(c, 'user.unbanned', by, data)
  end,
  kick = function(c, id, _, ends, _, more)
    if not put_out(c, id, 'kicked', more) then return 'not_found' end
    if ends < math.huge then stand(c, 'bans', KICKED .. id, ends) end
  end,
}

-- Y: key, by (JSON), mute, unmute, ban, unban or kick, user, reason (JSON, or empty), ms (empty: without end). Answer:
-- seq; without a change, of the last event.
OPS.Y = function(c, i, at)
  local argv = c.argv
  local key, by, action, id, reason, ms = argv[i], argv[i + 1], argv[i + 2], argv[i + 3], argv[i + 4], argv[i + 5]
  local stop = i + 6
  if c.shut then
    gone(c, at)
    return stop
  end
  if happened(c, at, key) or shut_out(c, at, c.guard and plain(by)) then return stop end
  cold(c)
  rest(c)
  if c.pending then flush(c) end
  local ends = ms ~= '' and c.now + tonumber(ms) or math.huge
  local lasts = ends < math.huge and (action == 'mute' or action == 'ban')
  local data = '{"user":' .. quote(id) .. (lasts and ',"until":' .. format('%d', ends) or '')
    .. (reason ~= '' and ',"reason":' .. reason or '') .. '}'
  local more = (ends < math.huge and ',"until":' .. format('%d', ends) or '') .. (reason ~= '' and ',"note":' .. reason or '')
  if ACTIONS[action](c, id, by, ends, data, more) then
    refuse(c, at, 'not_found', 'the user is not in the room')
    return stop
  end
  remember(c, key, c.seq)
  c.out[at] = c.seq
  return stop
end
