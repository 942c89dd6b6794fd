import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.producer.LocalTransactionState;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.client.producer.TransactionListener;
import org.apache.rocketmq.client.producer.TransactionMQProducer;
import org.apache.rocketmq.client.producer.TransactionSendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/**
 * What a transactional producer says, by a message's number modulo 5: commit; roll back; nothing, and commit when asked;
 * nothing, and roll back when asked; nothing, nothing when asked first, and commit when asked again.
 */
final class Transactions implements TransactionListener {
    private static final LocalTransactionState COMMIT = LocalTransactionState.COMMIT_MESSAGE;
    private static final LocalTransactionState ROLLBACK = LocalTransactionState.ROLLBACK_MESSAGE;
    private static final LocalTransactionState UNKNOWN = LocalTransactionState.UNKNOW;

    /** One-way answers need a moment on their way. */
    private static final long MORE_MILLISECONDS = 1_500;

    private final Map<String, Integer> asked = new HashMap<>();
    private final CountDownLatch open;

    private Transactions(int count) {
        int answers = 0;
        for (int number = 0; number < count; number++) {
            answers += answersOf(number);
        }
        open = new CountDownLatch(answers);
    }

    static void settle(Order order) throws Exception {
        Transactions listener = new Transactions(order.count);
        TransactionMQProducer producer = new TransactionMQProducer(order.group);
        producer.setNamesrvAddr(order.nameserver);
        producer.setSendMsgTimeout(10_000);
        producer.setTransactionListener(listener);
        producer.start();
        try {
            for (int number = 0; number < order.count; number++) {
                Message message = Sending.message(order, number);
                Integer argument = number;
                TransactionSendResult result =
                    Order.patiently(() -> producer.sendMessageInTransaction(message, argument));
                Order.expect(result.getSendStatus() == SendStatus.SEND_OK, "not stored: " + result);
                new Fact("half").with("key", message.getKeys()).with("body", Sending.text(message))
                    .with("tag", message.getTags()).answered(result)
                    .with("transaction", result.getTransactionId())
                    .with("local", word(result.getLocalTransactionState())).tell();
            }
            listener.open.await();
            TimeUnit.MILLISECONDS.sleep(MORE_MILLISECONDS);
        } finally {
            producer.shutdown();
        }
    }

    @Override
    public LocalTransactionState executeLocalTransaction(Message message, Object number) {
        switch ((Integer) number % 5) {
            case 0: return COMMIT;
            case 1: return ROLLBACK;
            default: return UNKNOWN;
        }
    }

    @Override
    public LocalTransactionState checkLocalTransaction(MessageExt message) {
        int number = Integer.parseInt(message.getUserProperty("number"));
        int times;
        synchronized (asked) {
            times = asked.merge(message.getKeys(), 1, Integer::sum);
        }
        LocalTransactionState answer = answer(number, times);
        new Fact("checked").with("key", message.getKeys()).with("body", Sending.text(message))
            .with("id", message.getMsgId()).with("transaction", message.getTransactionId())
            .with("times", times).with("answer", word(answer)).tell();
        if (times <= answersOf(number)) {
            open.countDown();
        }
        return answer;
    }

    private static LocalTransactionState answer(int number, int times) {
        switch (number % 5) {
            case 0: case 2: return COMMIT;
            case 1: case 3: return ROLLBACK;
            default: return times == 1 ? UNKNOWN : COMMIT;
        }
    }

    /** How often it has to be asked until it is settled. */
    private static int answersOf(int number) {
        int[] answers = {0, 0, 1, 1, 2};
        return answers[number % 5];
    }

    private static String word(LocalTransactionState state) {
        return state == COMMIT ? "commit" : state == ROLLBACK ? "rollback" : "unknown";
    }
}
