import java.util.concurrent.TimeUnit;

/** Plays one scenario against a RocketMQ server; see tests/clients/README.md. */
public final class Client {
    private Client() {}

    /** Arguments: SCENARIO NAMESERVER TOPIC GROUP COUNT [SUBSCRIPTION]. */
    public static void main(String[] arguments) {
        if (arguments.length < 5) {
            System.err.println("usage: Client SCENARIO NAMESERVER TOPIC GROUP COUNT [SUBSCRIPTION]");
            System.exit(2);
        }
        Order order = new Order(
            arguments[1],
            arguments[2],
            arguments[3],
            Integer.parseInt(arguments[4]),
            arguments.length > 5 ? arguments[5] : "*");
        if (!arguments[0].equals("endless")) {
            endInTime(order);
        }
        int status = 0;
        try {
            play(arguments[0], order);
            new Fact("done").tell();
        } catch (Throwable failure) {
            failure.printStackTrace();
            new Fact("failed").with("why", String.valueOf(failure)).tell();
            status = 1;
        }
        // The clients leave threads behind that would keep the process alive.
        System.exit(status);
    }

    private static void play(String scenario, Order order) throws Exception {
        switch (scenario) {
            case "send": Sending.plain(order); break;
            case "send-batch": Sending.batch(order); break;
            case "send-delayed": Sending.delayed(order); break;
            case "send-ordered": Sending.ordered(order); break;
            case "consume": Consuming.concurrently(order, false); break;
            case "consume-retry": Consuming.concurrently(order, true); break;
            case "consume-orderly": Consuming.orderly(order); break;
            case "pull": Pulling.everything(order); break;
            case "look-up": Pulling.lookUp(order); break;
            case "transaction": Transactions.settle(order); break;
            case "endless": Endless.serve(order); break;
            default: throw new IllegalArgumentException("no scenario is called " + scenario);
        }
    }

    private static void endInTime(Order order) {
        Thread watch = new Thread(() -> {
            try {
                TimeUnit.SECONDS.sleep(order.seconds);
            } catch (InterruptedException interrupted) {
                return;
            }
            new Fact("failed").with("why", "took longer than " + order.seconds + " s").tell();
            Runtime.getRuntime().halt(1);
        });
        watch.setDaemon(true);
        watch.start();
    }
}
