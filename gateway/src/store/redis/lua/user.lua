--[[ What concerns one user or one address over all rooms and nodes: one key a call, with Redis's clock.

KEYS[1] and ARGV:
  user:{id}:rates           hash  lane -> tokens and ms
    spend, lane, want, per second, burst   answer: { granted, ms until the next token if none }
  user:{id}:connections,
  ip:{address}:connections  hash  a node's instance -> its connections and the ms of the last change
    count, instance, here, more, most, ms, former, instance …
                                           `here` of this instance, and of `more` as many as there may be with those of the
                                           others: so many are written. Nothing is left of `former`, the same node's instance
                                           before, if any. Entries of instances that are not among those named at the end, and
                                           have not changed for so many ms, are of nodes that are gone; they are looked at
                                           where `more` is not 0. Answer: how many of `more`
  user:{id}:revoked         string  ms: tokens made before are revoked
    revoke, ms                             now, and for so many ms. Answer: now
  user:{id}:blocked         string  ms at which it ends, or -
    block, ms                              for so many ms, or for ever if empty. Answer: now ]]

-- How long what is counted of a user is kept without a change.
local KEPT = 7 * 24 * 3600 * 1000

local function counted(text)
  local count, at = match(text or '', '^(%d+) (%d+)$')
  return tonumber(count) or 0, tonumber(at) or 0
end

local USER = {
  spend = function(key, now, argv)
    local lane, want, per, burst = argv[2], tonumber(argv[3]), tonumber(argv[4]), tonumber(argv[5])
    local tokens, at = match(call('HGET', key, lane) or '', '^(%S+) (%d+)$')
    tokens, at = tonumber(tokens) or burst, tonumber(at) or now
    tokens = min(burst, tokens + max(0, now - at) * per / 1000)
    local granted = min(want, floor(tokens))
    call('HSET', key, lane, format('%.3f %d', tokens - granted, now))
    -- A bucket that is full again need not be known. The other lanes' may take longer: the later end stands.
    local life = format('%d', math.ceil(burst / per * 1000) + 1000)
    if call('PEXPIRE', key, life, 'NX') == 0 then call('PEXPIRE', key, life, 'GT') end
    return { granted, granted > 0 and 0 or math.ceil((1 - tokens) * 1000 / per) }
  end,
  count = function(key, now, argv)
    local me, former, here, more, most = argv[2], argv[7], tonumber(argv[3]), tonumber(argv[4]), tonumber(argv[5])
    local patience, granted = tonumber(argv[6]), 0
    if former ~= '' then call('HDEL', key, former) end
    if more > 0 then
      local live, others = {}, 0
      for k = 8, #argv do live[argv[k]] = true end
      local stored = call('HGETALL', key)
      for k = 1, #stored, 2 do
        local count, at = counted(stored[k + 1])
        if stored[k] == me then
          -- Said anew below.
        elseif not live[stored[k]] and now - at > patience then
          call('HDEL', key, stored[k])
        else
          others = others + count
        end
      end
      granted = max(0, min(more, most - others - here))
    end
    if here + granted > 0 then
      call('HSET', key, me, format('%d %d', here + granted, now))
      call('PEXPIRE', key, format('%d', KEPT))
    else
      call('HDEL', key, me)
    end
    return granted
  end,
  revoke = function(key, now, argv)
    call('SET', key, format('%d', now), 'PX', argv[2])
    return now
  end,
  block = function(key, now, argv)
    if argv[2] == '' then
      call('SET', key, '-')
    else
      call('SET', key, format('%d', now + argv[2]), 'PX', argv[2])
    end
    return now
  end,
}

redis.register_function('@NAME@_user', named(USER))
