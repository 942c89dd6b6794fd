import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.MessageExt;

/** Something that happened, told as one line of JSON. */
final class Fact {
    private final Map<String, Object> members = new LinkedHashMap<>();

    Fact(String name) {
        members.put("fact", name);
    }

    Fact with(String name, Object value) {
        members.put(name, value);
        return this;
    }

    /** What the server answered to a send. */
    Fact answered(SendResult result) {
        return with("id", result.getMsgId())
            .with("offset_id", result.getOffsetMsgId())
            .with("status", result.getSendStatus().name())
            .with("queue", result.getMessageQueue().getQueueId())
            .with("offset", result.getQueueOffset());
    }

    /** A message as a consumer sees it. */
    static Fact received(MessageExt message) {
        return new Fact("received")
            .with("id", message.getMsgId())
            .with("queue", message.getQueueId())
            .with("offset", message.getQueueOffset())
            .with("key", message.getKeys())
            .with("tag", message.getTags())
            .with("body", new String(message.getBody(), java.nio.charset.StandardCharsets.UTF_8))
            .with("reconsumed", message.getReconsumeTimes())
            .with("born", message.getBornTimestamp())
            .with("stored", message.getStoreTimestamp());
    }

    void tell() {
        String text = members.entrySet().stream()
            .map(member -> quoted(member.getKey()) + ":" + value(member.getValue()))
            .collect(Collectors.joining(",", "{", "}"));
        synchronized (Fact.class) {
            System.out.println(text);
            System.out.flush();
        }
    }

    private static String value(Object value) {
        if (value == null || value instanceof Number || value instanceof Boolean) {
            return String.valueOf(value);
        }
        return quoted(value.toString());
    }

    private static String quoted(String text) {
        StringBuilder quoted = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                quoted.append('\\').append(c);
            } else if (c < ' ') {
                quoted.append(String.format("\\u%04x", (int) c));
            } else {
                quoted.append(c);
            }
        }
        return quoted.append('"').toString();
    }
}
